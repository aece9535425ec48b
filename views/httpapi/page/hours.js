// The flight day: a heat map of events per hour, one row a day.

import { view } from './api.js';
import { $, h, number } from './dom.js';

const days = 31;
let before = '', stack = [];

export function start() {
  $('older').addEventListener('click', () => { stack.push(before); before = $('older').dataset.before; refresh(); });
  $('newer').addEventListener('click', () => { before = stack.pop() ?? ''; refresh(); });
}

// refresh asks for the hours again and draws them. A page may hold more days than are shown, if their hours are few.
export async function refresh() {
  const asked = before;
  try {
    const page = await view('busiest_hours', { order: '-hour', limit: days * 24, ...(before && { 'hour.lt': before }) });
    if (asked !== before) return; // other days were chosen meanwhile
    const all = byDay(page.rows);
    const shown = all.slice(0, days);
    draw(shown);
    $('older').disabled = !page.next && all.length === shown.length;
    $('older').dataset.before = shown.length ? `${shown.at(-1)[0]}T00:00:00Z` : '';
    $('newer').disabled = !before;
  } catch (fault) {
    $('heat').replaceChildren(h('p', { class: 'fault' }, fault.message));
  }
}

// byDay puts rows into days, the newest first: [day, its 24 hours].
function byDay(rows) {
  const all = new Map();
  for (const r of rows) {
    const day = r.hour.slice(0, 10);
    if (!all.has(day)) all.set(day, Array(24).fill(null));
    all.get(day)[Number(r.hour.slice(11, 13))] = r;
  }
  return [...all];
}

function draw(shown) {
  if (!shown.length) return;
  const top = Math.max(...shown.flatMap(([, hours]) => hours.map((r) => r?.total_events ?? 0)), 1);
  $('heat').replaceChildren(h('div', { class: 'scroll' }, h('table', { class: 'heat' },
    h('caption', { class: 'hidden' }, 'Events per hour of the day'),
    h('thead', {}, h('tr', {}, h('th', { scope: 'col' }, h('span', { class: 'hidden' }, 'Day')), ...Array.from({ length: 24 }, (_, i) => h('th', { scope: 'col' }, String(i).padStart(2, '0'))), h('th', { scope: 'col' }, 'Σ'))),
    h('tbody', {}, ...shown.toReversed().map(([day, hours]) => row(day, hours, top))))), legend(top));
}

const weekday = (day) => new Date(`${day}T00:00:00Z`).toLocaleDateString('en', { weekday: 'short', timeZone: 'UTC' });

function row(day, hours, top) {
  return h('tr', {}, h('th', { scope: 'row' }, `${weekday(day)} `, h('span', { class: 'soft' }, day.slice(5))),
    ...hours.map((r, i) => cell(day, i, r, top)), h('td', { class: 'sum' }, number(hours.reduce((n, r) => n + (r?.total_events ?? 0), 0))));
}

function cell(day, hour, r, top) {
  const label = `${day} ${String(hour).padStart(2, '0')}:00, ${number(r?.total_events ?? 0)} events${r ? `, ${number(r.aircraft)} aircraft` : ''}`;
  return h('td', { class: r ? 'hot' : 'cold', 'data-tip': label, vars: { '--heat': Math.sqrt((r?.total_events ?? 0) / top).toFixed(3) } }, h('span', { class: 'hidden' }, String(r?.total_events ?? 0)));
}

const legend = (top) => h('p', { class: 'legend soft' }, '0', h('i', { class: 'ramp', 'aria-hidden': 'true' }), `${number(top)} events an hour`);
