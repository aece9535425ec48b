// The pipeline: headline figures, the diagram from topics to store, and the table of partitions.

import { $, compact, duration, h, number, rate, s, text, time } from './dom.js';

const figures = [
  { id: 'counted', name: 'Counted', hint: 'events in windows', of: (p) => p.outcomes.counted },
  { id: 'late', name: 'Late', hint: 'came too late', of: (p) => p.outcomes.late, tone: 'warn' },
  { id: 'dead', name: 'Dead', hint: 'unreadable', of: (p) => p.outcomes.dead, tone: 'bad' },
  { id: 'rekeyed', name: 'Re-keyed', hint: 'moved to their key', of: (p) => p.outcomes.rekeyed },
  { id: 'fenced', name: 'Fenced', hint: 'repeats ignored', of: (p) => p.outcomes.fenced },
];

const history = { counted: [], lag: [] };
const points = 90;

function figure(id, name, hint, tone) {
  const chart = s('svg', { class: 'spark', viewBox: `0 0 ${points} 24`, preserveAspectRatio: 'none', 'aria-hidden': 'true' }, s('polyline'));
  return h('li', { class: `figure ${tone ?? ''}`, id: `figure-${id}` },
    h('span', { class: 'name' }, name), h('b', { class: 'value' }, '–'), h('span', { class: 'soft second' }, hint), chart);
}

function setFigure(id, value, second, series, lit) {
  const box = $(`figure-${id}`);
  text(box.querySelector('.value'), value);
  text(box.querySelector('.second'), second);
  box.classList.toggle('lit', Boolean(lit));
  if (!series) return;
  const top = Math.max(...series, 1e-9);
  const shift = points - series.length;
  box.querySelector('polyline').setAttribute('points', series.map((v, i) => `${shift + i},${(23 - (v / top) * 22).toFixed(1)}`).join(' '));
}

function remember(name, value) {
  history[name].push(value);
  if (history[name].length > points) history[name].shift();
  return history[name];
}

export function start() {
  $('figures').append(
    ...figures.map((f) => figure(f.id, f.name, f.hint, f.tone)),
    figure('lag', 'Lag', 'records unread'),
    figure('watermark', 'Watermark', 'event time passed'),
  );
}

const role = (p, name) => p.topics.find((t) => t.role === name);

export function show(p, store) {
  const input = role(p, 'input');
  for (const f of figures) {
    const { total, per_second: perSecond } = f.of(p);
    const series = f.id === 'counted' ? remember('counted', perSecond) : null;
    setFigure(f.id, number(total), perSecond ? `${rate(perSecond)} per second` : f.hint, series, f.tone && total > 0);
  }
  if (input) {
    setFigure('lag', compact(input.lag), input.lag ? 'records unread' : 'all read', remember('lag', input.lag));
    const [day, clock] = time(input.watermark).split(' ');
    setFigure('watermark', clock ?? '–', clock ? `${day}, event time` : 'event time passed');
  }
  showFlow(p, store);
  showPartitions(p);
  showReplay(p.replay);
}

// The diagram is built once for a set of topics; afterwards only texts change, so that nothing jumps and focus stays.
let drawn = '';

function showFlow(p, store) {
  const shape = p.topics.map((t) => t.name + t.reader + t.partitions.length).join() + store;
  if (shape !== drawn) {
    drawn = shape;
    $('flow').replaceChildren(...drawFlow(p, store));
  }
  for (const t of p.topics) updateTopic(t);
  updateWorkers(p);
}

function drawFlow(p, store) {
  const of = (name) => p.topics.filter((t) => t.role === name);
  const input = of('input')[0], output = of('output')[0];
  const side = [...of('loop'), ...of('table'), ...of('late'), ...of('dead')];
  return [
    h('div', { class: 'lane main' },
      h('div', { class: 'node ghost' }, h('h3', {}, 'Producers'), h('p', { class: 'soft' }, 'API, Kafka clients')),
      wire('wire-input'),
      ...of('input').map(topicNode),
      wire('wire-work'),
      h('div', { class: 'node work', id: 'worker' }, h('p', { class: 'kind' }, 'processor'), h('h3', {}, input?.reader || 'processor'),
        h('p', { class: 'soft' }, 'folds events into windows'), h('p', { class: 'big', id: 'worker-rate' }), h('p', { class: 'soft', id: 'worker-mark' })),
      wire('wire-output'),
      ...of('output').map(topicNode),
      wire('wire-store'),
      h('div', { class: 'node work', id: 'store-node' }, h('p', { class: 'kind' }, 'store'), h('h3', {}, store || 'store'),
        h('p', { class: 'soft' }, `sink ${output?.reader ?? ''}`), h('p', { class: 'big', id: 'store-rate' }), h('p', { class: 'soft', id: 'store-lag' }))),
    h('div', { class: 'lane side' }, ...side.map(topicNode)),
  ];
}

const wire = (id) => h('div', { class: 'wire', id, 'aria-hidden': 'true' });

const kinds = { input: 'topic in', output: 'topic out', loop: 'loop: re-keyed', table: 'group table', late: 'late events', dead: 'dead letters' };

function topicNode(t) {
  const link = t.role === 'late' || t.role === 'dead';
  return h('div', { class: `node topic ${t.role}`, 'data-topic': t.name },
    h('p', { class: 'kind' }, kinds[t.role] ?? t.role),
    h('h3', {}, link ? h('a', { href: '#letters', 'data-letters': t.role === 'late' ? 'late_events' : 'dead_letters' }, t.name) : t.name),
    h('p', { class: 'big records' }),
    h('p', { class: 'soft rates' }),
    t.reader && h('p', { class: 'soft lag' }),
    h('div', { class: 'parts', role: 'img' }, ...t.partitions.map((q) => h('i', { 'data-id': q.id }))));
}

function updateTopic(t) {
  const node = document.querySelector(`.node[data-topic="${CSS.escape(t.name)}"]`);
  if (!node) return;
  text(node.querySelector('.records'), `${compact(t.records)} record${t.records === 1 ? '' : 's'}`);
  text(node.querySelector('.rates'), t.in_per_second ? `${rate(t.in_per_second)} / s in` : 'quiet');
  const lag = node.querySelector('.lag');
  if (lag) text(lag, t.lag ? `${compact(t.lag)} behind` : 'all read');
  node.classList.toggle('behind', t.lag > 0);
  node.classList.toggle('some', t.records > 0);
  const parts = node.querySelector('.parts');
  const top = Math.max(...t.partitions.map((q) => q.end), 1);
  parts.setAttribute('aria-label', `${t.partitions.length} partitions`);
  t.partitions.forEach((q, i) => {
    const bar = parts.children[i];
    bar.style.setProperty('--fill', (q.end / top).toFixed(3));
    bar.style.setProperty('--lag', (q.end ? Math.min(1, q.lag / q.end) : 0).toFixed(3));
    bar.dataset.tip = `partition ${q.id}: ${number(q.end)} records, ${number(q.lag)} behind${q.watermark ? `, watermark ${time(q.watermark)}` : ''}`;
  });
}

function updateWorkers(p) {
  const input = role(p, 'input'), output = role(p, 'output');
  if (input) {
    text($('worker-rate'), `${rate(input.out_per_second)} / s`);
    text($('worker-mark'), `watermark ${time(input.watermark)}`);
  }
  if (output) {
    text($('store-rate'), `${rate(output.out_per_second)} / s`);
    text($('store-lag'), output.lag ? `${compact(output.lag)} behind` : 'up to date');
  }
  for (const [id, value] of [['wire-input', input?.in_per_second], ['wire-work', input?.out_per_second], ['wire-output', output?.in_per_second], ['wire-store', output?.out_per_second]]) {
    $(id)?.classList.toggle('moving', value > 0);
  }
}

function showPartitions(p) {
  if (!$('partitions').open) return;
  const rows = p.topics.flatMap((t) => t.partitions.map((q) => h('tr', {},
    h('th', { scope: 'row' }, t.name), h('td', { class: 'n' }, String(q.id)), h('td', { class: 'n' }, number(q.committed)), h('td', { class: 'n' }, number(q.end)),
    h('td', {}, t.reader ? h('meter', { min: 0, max: Math.max(q.end, 1), high: Math.max(q.end, 1) * 0.5, value: q.lag, 'aria-label': `lag ${q.lag}` }) : '', t.reader ? ` ${number(q.lag)}` : ''),
    h('td', { class: 'n' }, rate(q.in_per_second)), h('td', { class: 'n' }, rate(q.out_per_second)), h('td', { class: 'time' }, time(q.watermark)))));
  $('partition-table').tBodies[0].replaceChildren(...rows);
}

function showReplay(r) {
  $('replay').hidden = !r;
  if (!r) return;
  const bar = $('replay-bar');
  if (r.total) { bar.max = r.total; bar.value = r.sent; } else if (r.done) { bar.max = 1; bar.value = 1; } else bar.removeAttribute('value');
  const share = r.total ? ` of ${number(r.total)} (${Math.floor((r.sent / r.total) * 100)} %)` : '';
  text($('replay-text'), `${r.done ? 'Replayed' : 'Replaying'} ${r.source}: ${number(r.sent)}${share}`);
  $('replay').classList.toggle('done', r.done);
}

// health asks for the dependencies' health and puts it in a sentence.
export function showHealth(answer) {
  const box = $('health');
  const failing = answer.checks.filter((c) => c.status !== 'ok');
  box.classList.toggle('fault', failing.length > 0);
  text(box, failing.length
    ? failing.map((c) => `${c.name} is failing: ${c.error}`).join('; ')
    : `healthy: ${answer.checks.map((c) => `${c.name} ${duration1(c.latency_seconds)}`).join(', ')}`);
}

const duration1 = (seconds) => (seconds < 0.0995 ? `${(seconds * 1000).toFixed(1)} ms` : seconds < 1 ? `${Math.round(seconds * 1000)} ms` : duration(seconds * 1000));
