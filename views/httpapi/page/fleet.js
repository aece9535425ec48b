// The fleet: busiest aircraft and the latest windows, kept up to date by the rows of the stream.

import { $, arrange, h, known, number, span, text, time } from './dom.js';

// windowKey tells a window from the others of its aircraft: by its start, or its end where windows share their starts.
export const windowKey = (w) => `${w.window_definition}|${w.window_kind === 'cumulating' ? w.window_end : w.window_start}`;

const tables = { aircraft_stats: new Map(), aircraft_windows: new Map() };
const keys = {
  aircraft_stats: (r) => r.registration_number,
  aircraft_windows: (r) => `${windowKey(r)}|${r.registration_number}`,
};
const limits = { aircraft_stats: 20, aircraft_windows: 60 };
const compare = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
const orders = {
  aircraft_stats: (a, b) => b.total_events - a.total_events || compare(a.registration_number, b.registration_number),
  aircraft_windows: (a, b) => compare(b.window_start, a.window_start) || compare(a.registration_number, b.registration_number) ||
    compare(a.window_definition, b.window_definition) || compare(a.window_end, b.window_end),
};

// take puts changed rows into a table and returns the keys of those that changed.
export function take({ view, whole, rows }) {
  if (!tables[view]) return;
  const before = tables[view];
  const fresh = whole ? new Map() : new Map(before);
  for (const row of rows) fresh.set(keys[view](row), row);
  const sorted = [...fresh.values()].sort(orders[view]).slice(0, limits[view]);
  tables[view] = new Map(sorted.map((r) => [keys[view](r), r]));
  const changed = new Set(rows.map(keys[view]).filter((k) => before.size && JSON.stringify(before.get(k)) !== JSON.stringify(tables[view].get(k))));
  if (view === 'aircraft_stats') showBusiest(sorted);
  else showLatest(sorted, changed);
}

export const registrations = () => [...tables.aircraft_stats.keys()];

function showBusiest(rows) {
  const list = $('busiest');
  const top = rows[0]?.total_events ?? 1;
  if (!rows.length) return;
  const there = known(list);
  arrange(list, rows.map((r) => {
    const li = there.get(r.registration_number) ?? busiestItem(r.registration_number);
    li.style.setProperty('--share', (r.total_events / top).toFixed(4));
    text(li.querySelector('.count'), number(r.total_events));
    text(li.querySelector('.when'), time(r.last_event).slice(0, 16));
    return li;
  }));
}

const busiestItem = (registration) => h('li', { 'data-key': registration },
  h('button', { type: 'button', class: 'bar', 'data-aircraft': registration, 'aria-label': `Show the windows of ${registration}` },
    h('span', { class: 'reg' }, registration), h('span', { class: 'track' }, h('span', { class: 'fill' })), h('b', { class: 'count n' }), h('span', { class: 'when soft' })));

function showLatest(rows, changed) {
  if (!rows.length) return;
  const body = $('latest').tBodies[0];
  const there = known(body);
  arrange(body, rows.map((r) => {
    const key = keys.aircraft_windows(r);
    const row = !changed.has(key) && there.get(key);
    if (row) row.className = '';
    return row || latestRow(r, key, changed.has(key));
  }));
}

const latestRow = (r, key, fresh) => h('tr', { 'data-key': key, class: fresh ? 'fresh' : null },
  h('th', { scope: 'row' }, h('button', { type: 'button', class: 'link', 'data-aircraft': r.registration_number }, r.registration_number)),
  h('td', { class: 'time' }, span(r.window_start, r.window_end), h('span', { class: 'soft def' }, r.window_definition)),
  h('td', {}, h('b', {}, number(r.event_count)), ' ', h('span', { class: 'soft' }, types(r.event_types))),
  h('td', {}, stateOf(r)));

export const stateOf = (r) => (r.final ? h('span', { class: 'tag' }, 'final') : h('span', { class: 'tag open' }, 'open'));

// types says how many events of each type, most first.
export function types(of) {
  return Object.entries(of ?? {}).sort((a, b) => b[1] - a[1]).map(([name, n]) => (n > 1 ? `${name} ${n}` : name)).join(', ');
}
