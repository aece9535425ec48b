// One aircraft: its windows on a time line, one lane per definition, open ones from the processor's own state.

import { ask, view } from './api.js';
import { $, calm, duration, h, number, s, span, time } from './dom.js';
import { stateOf, types, windowKey } from './fleet.js';

let chosen = '', windows = [], about = {}, doubt = '';
const most = 2000;
const moment = 10; // seconds that open windows may be old without a word

export function start(features) {
  about = features;
  $('pick').addEventListener('submit', (e) => { e.preventDefault(); choose($('pick-input').value); });
  $('pick-input').addEventListener('input', suggest);
  $('span').addEventListener('change', draw);
  document.addEventListener('click', (e) => {
    const name = e.target.closest('[data-aircraft]')?.dataset.aircraft;
    if (!name) return;
    choose(name);
    $('aircraft').scrollIntoView({ behavior: matchMedia('(prefers-reduced-motion: reduce)').matches ? 'auto' : 'smooth' });
    $('pick-input').focus({ preventScroll: true });
  });
  new ResizeObserver(calm(draw, 100)).observe($('timeline'));
}

const suggest = calm(async () => {
  const prefix = $('pick-input').value.trim().toUpperCase();
  const page = await view('aircraft_stats', { ...(prefix && { 'registration_number.prefix': prefix }), limit: 12 }).catch(() => ({ rows: [] }));
  $('pick-list').replaceChildren(...page.rows.map((r) => h('option', { value: r.registration_number })));
}, 250);

export const choice = () => chosen;

// choose shows an aircraft.
export async function choose(registration) {
  chosen = registration.trim().toUpperCase();
  $('pick-input').value = chosen;
  await refresh();
}

// refresh asks again for the windows of the aircraft that is shown.
export async function refresh() {
  if (!chosen) return;
  const name = chosen;
  try {
    const [page, live] = await Promise.all([
      view('aircraft_windows', { registration_number: name, order: '-window_start', limit: most }),
      about.live ? ask(`/api/v1/streaming/live/${encodeURIComponent(name)}`).catch((fault) => ({ windows: [], fault: fault.message })) : { windows: [] },
    ]);
    if (name !== chosen) return;
    doubt = live.fault ? `Open windows that the store does not have yet are missing: ${live.fault}.`
      : live.age_seconds > moment ? `Open windows are as they were ${duration(live.age_seconds * 1000)} ago: newer ones do not come from the broker.` : '';
    windows = merge(page.rows, live.windows);
    draw();
  } catch (fault) {
    $('timeline').replaceChildren(h('p', { class: 'fault' }, fault.message));
  }
}

// merge puts open windows over the store's rows where they are newer.
function merge(rows, open) {
  const all = new Map(rows.map((r) => [windowKey(r), r]));
  for (const w of open) {
    const k = windowKey(w);
    const known = all.get(k);
    if (!known || w.revision > known.revision) all.set(k, { ...w, final: false, live: true });
  }
  return [...all.values()].sort((a, b) => (a.window_start < b.window_start ? -1 : 1));
}

const axis = 24, lane = 64, left = 4;

function draw() {
  const box = $('timeline');
  if (!chosen) return;
  if (!windows.length) {
    box.replaceChildren(h('p', { class: 'empty' }, `${chosen} has no windows.`), ...doubts());
    return;
  }
  const end = Math.max(...windows.map((w) => Date.parse(w.window_end)));
  const days = Number($('span').value);
  const begin = days ? end - days * 864e5 : Math.min(...windows.map((w) => Date.parse(w.window_start)));
  const shown = windows.filter((w) => Date.parse(w.window_end) > begin);
  const details = box.querySelector('details');
  box.replaceChildren(summary(shown), ...doubts(), chart(shown, begin, end, box.clientWidth), table(shown, details?.open));
}

const doubts = () => (doubt ? [h('p', { class: 'fault', role: 'status' }, doubt)] : []);

function summary(shown) {
  const first = shown[0].window_definition;
  const counted = shown.filter((w) => w.window_definition === first);
  const events = counted.reduce((n, w) => n + w.event_count, 0);
  const open = shown.filter((w) => !w.final).length;
  const of = {};
  for (const w of counted) for (const [type, n] of Object.entries(w.event_types ?? {})) of[type] = (of[type] ?? 0) + n;
  return h('p', { class: 'lead' }, h('b', { class: 'reg' }, chosen), ` ${number(events)} events in ${number(counted.length)} windows of ${first}: ${types(of)}. `,
    open ? h('span', { class: 'tag open' }, `${open} open`) : h('span', { class: 'tag' }, 'all final'));
}

function chart(shown, begin, end, width) {
  const definitions = [...new Set(shown.map((w) => w.window_definition))].sort();
  const height = axis + definitions.length * lane;
  const x = (t) => left + ((t - begin) / (end - begin)) * (width - 2 * left);
  const top = Math.max(...shown.map((w) => w.event_count), 1);
  const root = s('svg', { class: 'chart', width, height, viewBox: `0 0 ${width} ${height}`, role: 'img', 'aria-label': `Windows of ${chosen} over time; the table below has the same` });
  root.append(...ticks(begin, end, x, height, width));
  definitions.forEach((d, i) => {
    const base = axis + (i + 1) * lane - 6;
    root.append(s('line', { class: 'base', x1: 0, x2: width, y1: base, y2: base }), s('text', { class: 'lane-name', x: left + 2, y: axis + i * lane + 14 }, d));
    for (const w of shown.filter((v) => v.window_definition === d)) root.append(bar(w, x, base, top, begin));
  });
  return root;
}

function bar(w, x, base, top, begin) {
  const from = x(Math.max(begin, Date.parse(w.window_start))), to = x(Date.parse(w.window_end));
  const height = 6 + (w.event_count / top) * (lane - 30);
  return s('rect', {
    class: w.final ? 'window' : 'window open', x: from + 0.5, y: base - height, width: Math.max(2, to - from - 1), height, rx: 2,
    'data-tip': `${span(w.window_start, w.window_end)}\n${w.event_count} events: ${types(w.event_types)}\n${w.final ? 'final' : w.live ? 'open, from the processor' : 'open'}`,
  });
}

const steps = [36e5, 3 * 36e5, 6 * 36e5, 12 * 36e5, 864e5, 2 * 864e5, 7 * 864e5, 30 * 864e5, 91 * 864e5, 365 * 864e5];

function ticks(begin, end, x, height, width) {
  const step = steps.find((v) => (end - begin) / v <= width / 90) ?? steps.at(-1);
  const out = [];
  for (let t = Math.ceil(begin / step) * step; t <= end; t += step) {
    const label = new Date(t).toISOString();
    out.push(s('line', { class: 'tick', x1: x(t), x2: x(t), y1: axis - 6, y2: height }));
    if (x(t) < width - 40) out.push(s('text', { class: 'tick-name', x: x(t) + 3, y: 13 }, step < 864e5 && label.slice(11, 13) !== '00' ? label.slice(11, 16) : label.slice(5, 10)));
  }
  return out;
}

function table(shown, open) {
  return h('details', { class: 'more', open: open ? '' : null }, h('summary', {}, `The same as a table (${shown.length})`),
    h('div', { class: 'scroll tall' }, h('table', {}, h('thead', {}, h('tr', {}, ...['Window', 'Definition', 'Events', 'Types', 'First', 'Last', 'State'].map((name) => h('th', { scope: 'col' }, name)))),
      h('tbody', {}, ...shown.toReversed().slice(0, 500).map((w) => h('tr', {},
        h('th', { scope: 'row', class: 'time' }, span(w.window_start, w.window_end)), h('td', {}, w.window_definition), h('td', { class: 'n' }, number(w.event_count)), h('td', {}, types(w.event_types)),
        h('td', { class: 'time' }, time(w.first_event_time)), h('td', { class: 'time' }, time(w.last_event_time)), h('td', {}, stateOf(w))))))));
}
