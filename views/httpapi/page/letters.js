// Late events and dead letters: why, from where, and the bytes.

import { view } from './api.js';
import { $, arrange, h, known, time } from './dom.js';

let shown = 'dead_letters', last = '', chosen = false;

export function start() {
  const tabs = [...document.querySelectorAll('[role=tab]')];
  for (const tab of tabs) {
    tab.addEventListener('click', () => select(tab.dataset.view));
    tab.addEventListener('keydown', (e) => {
      if (e.key !== 'ArrowLeft' && e.key !== 'ArrowRight') return;
      const other = tabs[(tabs.indexOf(tab) + 1) % tabs.length];
      other.focus();
      select(other.dataset.view);
    });
  }
  document.addEventListener('click', (e) => { const name = e.target.closest('[data-letters]')?.dataset.letters; if (name) select(name); });
}

// lean shows the kind of which there are any, as long as nobody has chosen one.
export function lean(late, dead) {
  if (!chosen && shown === 'dead_letters' && late > 0 && dead === 0) select('late_events', false);
  if (!chosen && shown === 'late_events' && dead > 0) select('dead_letters', false);
}

function select(name, byHand = true) {
  shown = name;
  chosen = chosen || byHand;
  last = '';
  for (const tab of document.querySelectorAll('[role=tab]')) {
    const on = tab.dataset.view === name;
    tab.setAttribute('aria-selected', String(on));
    tab.tabIndex = on ? 0 : -1;
    if (on) $('letter-list').setAttribute('aria-labelledby', tab.id);
  }
  refresh();
}

// refresh asks for the newest letters of the kind that is shown.
export async function refresh() {
  const name = shown;
  try {
    const page = await view(name, { order: '-source_offset', limit: 50 });
    const now = JSON.stringify(page.rows);
    if (name !== shown || now === last) return;
    last = now;
    draw(page.rows, page.next);
  } catch (fault) {
    last = '';
    $('letter-list').replaceChildren(h('p', { class: 'fault' }, fault.message));
  }
}

const place = (r) => `${r.source_topic}/${r.source_partition}@${r.source_offset}`;

function draw(rows, more) {
  const box = $('letter-list');
  if (!rows.length) {
    box.replaceChildren(h('p', { class: 'empty' }, shown === 'late_events' ? 'No event came too late.' : 'Every event could be read.'));
    return;
  }
  const list = box.querySelector('.letters') ?? h('div', { class: 'letters' });
  const there = known(list); // a letter never changes: what is shown stays, open or not
  arrange(list, rows.map((r) => there.get(`${shown} ${place(r)}`) ?? letter(r)));
  arrange(box, [reasons(rows, more), list, ...(more ? [h('p', { class: 'soft' }, 'The 50 with the highest offsets are shown; the API has all.')] : [])]);
}

// reasons are those of what is shown; with a plus where there is more.
function reasons(rows, more) {
  const count = new Map();
  for (const r of rows) count.set(r.reason, (count.get(r.reason) ?? 0) + 1);
  return h('p', { class: 'reasons' }, ...[...count].sort((a, b) => b[1] - a[1]).map(([reason, n]) => h('span', { class: 'tag' }, `${reason} ${n}${more ? '+' : ''}`)));
}

function letter(r) {
  return h('details', { class: 'letter', 'data-key': `${shown} ${place(r)}` },
    h('summary', {}, h('span', { class: `tag ${shown === 'late_events' ? 'warn' : 'bad'}` }, r.reason), h('span', { class: 'reg' }, r.registration_number ?? ''),
      h('span', { class: 'time soft' }, r.event_time ? time(r.event_time) : ''), h('span', { class: 'what soft' }, r.detail), h('code', { class: 'soft place' }, place(r))),
    h('p', {}, r.detail),
    r.record_key && h('p', { class: 'soft' }, 'key ', h('code', {}, r.record_key)),
    h('pre', { tabindex: 0, 'aria-label': 'Bytes of the record' }, bytes(r)));
}

// bytes shows a record: pretty where it is JSON, as text where it is that, else as a dump.
function bytes(r) {
  if (r.payload !== null && r.payload !== undefined) {
    try { return JSON.stringify(JSON.parse(r.payload), null, 2); } catch { return r.payload === '' ? '(empty)' : r.payload; }
  }
  if (!r.payload_base64) return '(no value)';
  const raw = atob(r.payload_base64);
  const lines = [];
  for (let i = 0; i < Math.min(raw.length, 4096); i += 16) {
    const part = [...raw.slice(i, i + 16)];
    const hex = part.map((c) => c.charCodeAt(0).toString(16).padStart(2, '0')).join(' ').padEnd(48);
    lines.push(`${i.toString(16).padStart(6, '0')}  ${hex} ${part.map((c) => (c >= ' ' && c <= '~' ? c : '·')).join('')}`);
  }
  if (raw.length > 4096) lines.push(`… ${raw.length} bytes`);
  return lines.join('\n');
}
