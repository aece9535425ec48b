// The registry: its entries, a form that creates one, and the type changed in place.

import { ask, tell } from './api.js';
import { $, arrange, calm, h, known, number, time } from './dom.js';

const path = '/api/v1/aircraft';
let rows = [], next = null, asked = 0;

export function start(features) {
  if (!features.registry) {
    $('registry').hidden = true;
    for (const a of document.querySelectorAll('a[href="#registry"]')) a.hidden = true;
    return;
  }
  $('create').addEventListener('submit', create);
  $('registry-search').addEventListener('submit', (e) => e.preventDefault());
  $('registry-prefix').addEventListener('input', calm(refresh, 200));
  $('registry-more').addEventListener('click', more);
  setInterval(() => { if (!document.hidden && !$('registry-table').querySelector('form') && rows.length <= page1) refresh(); }, 10000);
}

const page1 = 50;

function say(message, tone = '') {
  $('create-fault').textContent = message;
  $('create-fault').className = `note ${tone}`;
}

async function create(event) {
  event.preventDefault();
  const field = $('create-registration');
  const registration = field.value.trim().toUpperCase();
  field.setAttribute('aria-invalid', String(!registration));
  if (!registration) { say('Type a registration number.', 'fault'); field.focus(); return; }
  $('create-button').disabled = true;
  say(`Creating ${registration} …`);
  try {
    const type = $('create-type').value.trim();
    const answer = await tell('POST', path, { registration_number: registration, ...(type && { aircraft_type: type }) });
    const outcome = answer.status === 202 ? await follow(answer.location) : 'applied';
    say(outcome === 'applied' ? `${registration} is in the registry.` : outcome === 'refused' ? `${registration} is taken.` : `${registration} is asked for; the registry has not decided yet.`, outcome === 'applied' ? 'good' : 'fault');
    if (outcome === 'applied') $('create').reset();
    if (outcome !== 'pending') await refresh(registration);
  } catch (fault) {
    field.setAttribute('aria-invalid', 'true');
    say(fault.message, 'fault');
  } finally {
    $('create-button').disabled = false;
  }
}

// follow asks for the outcome of a request that was not decided at once.
async function follow(location) {
  for (let i = 0; i < 20; i++) {
    await new Promise((resolve) => setTimeout(resolve, 1000));
    const { outcome } = await ask(location);
    if (outcome !== 'pending') return outcome;
  }
  return 'pending';
}

async function load(after) {
  const prefix = $('registry-prefix').value.trim();
  return ask(path, { limit: page1, ...(prefix && { 'registration_number.prefix': prefix }), ...(after && { cursor: after }) });
}

// refresh shows the first page again; created is an entry to point at. An answer that comes behind that to a later question is none.
export async function refresh(created) {
  const turn = ++asked;
  try {
    const page = await load();
    const first = typeof created === 'string' && !page.aircraft.some((r) => r.id === created) ? [await ask(`${path}/${encodeURIComponent(created)}`)] : [];
    if (turn !== asked) return;
    [rows, next] = [[...first, ...page.aircraft], page.next];
    draw(typeof created === 'string' ? created : '');
  } catch (fault) {
    say(fault.message, 'fault');
  }
}

async function more() {
  const turn = ++asked;
  try {
    const page = await load(next);
    if (turn !== asked) return;
    rows.push(...page.aircraft);
    next = page.next;
    draw();
  } catch (fault) {
    say(fault.message, 'fault');
  }
}

function draw(created) {
  $('registry-more').hidden = !next;
  $('registry-count').textContent = rows.length ? `${number(rows.length)}${next ? '+' : ''} shown` : '';
  if (!rows.length) {
    $('registry-table').tBodies[0].replaceChildren(h('tr', {}, h('td', { colspan: 6, class: 'empty' }, 'No aircraft here.')));
    return;
  }
  const body = $('registry-table').tBodies[0];
  const there = known(body);
  arrange(body, rows.map((r) => (r.id !== created && there.get(version(r))) || entry(r, r.id === created)));
}

const version = (r) => `${r.id}@${r.revision}`;

function entry(r, fresh) {
  return h('tr', { class: fresh ? 'fresh' : null, 'data-id': r.id, 'data-key': version(r) },
    h('th', { scope: 'row' }, h('button', { type: 'button', class: 'link', 'data-aircraft': r.registration_number }, r.registration_number)),
    h('td', { class: 'type' }, r.aircraft_type || h('span', { class: 'soft' }, 'unknown')), h('td', { class: 'n' }, r.aircraft_id === null ? '–' : String(r.aircraft_id)), h('td', { class: 'n' }, number(r.revision)),
    h('td', { class: 'time' }, time(r.updated_at)), h('td', { class: 'n' }, h('button', { type: 'button', class: 'small', on: { click: (e) => edit(e, r) }, 'aria-label': `Change the type of ${r.registration_number}` }, 'Edit')));
}

function edit(event, r) {
  const tr = event.target.closest('tr');
  const input = h('input', { value: r.aircraft_type, maxlength: 64, 'aria-label': `Type of ${r.registration_number}` });
  const save = async (e) => {
    e.preventDefault();
    try {
      await tell('PUT', `${path}/${encodeURIComponent(r.id)}`, { aircraft_type: input.value.trim() }, { 'If-Match': `"${r.revision}"` });
      say(`${r.registration_number} is changed.`, 'good');
    } catch (fault) {
      say(`${r.registration_number}: ${fault.message}`, 'fault');
    }
    await refresh(r.id);
  };
  tr.querySelector('.type').replaceChildren(h('form', { class: 'row', on: { submit: save } }, input, h('button', { class: 'small primary' }, 'Save')));
  input.select();
}
