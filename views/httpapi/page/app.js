// The page: what is where, and what is asked for again when something changed.

import { ask, key, listen, whenUnauthorised } from './api.js';
import * as aircraft from './aircraft.js';
import { $, calm, text, tips } from './dom.js';
import * as fleet from './fleet.js';
import * as hours from './hours.js';
import * as letters from './letters.js';
import * as pipeline from './pipeline.js';
import * as registry from './registry.js';

const themes = $('theme');
themes.value = localStorage.getItem('klgstream-theme') ?? 'auto';
const paint = () => { document.documentElement.dataset.theme = themes.value; };
themes.addEventListener('change', () => { localStorage.setItem('klgstream-theme', themes.value); paint(); });
paint();
tips($('tip'));

const about = await (await fetch('/page/about.json')).json();
text($('version'), about.version);

function askForKey(why) {
  $('key').hidden = false;
  text($('key-fault'), why && key.get() ? why : '');
  $('key-input').focus();
}
$('key-form').addEventListener('submit', (e) => { e.preventDefault(); key.set($('key-input').value); location.reload(); });
whenUnauthorised(askForKey);

const soon = {
  hours: calm(hours.refresh, 4000),
  letters: calm(letters.refresh, 2500),
  aircraft: calm(aircraft.refresh, 2000),
  others: calm(aircraft.refresh, 10000), // a message has room for some of the rows that changed only
};

let outcomes = '';

function onPipeline(p) {
  pipeline.show(p, about.store);
  const now = JSON.stringify(p.topics.filter((t) => t.role === 'late' || t.role === 'dead').map((t) => t.records)) + p.outcomes.late.total + p.outcomes.dead.total;
  const records = (role) => p.topics.find((t) => t.role === role)?.records ?? 0;
  letters.lean(records('late'), records('dead'));
  if (now !== outcomes) soon.letters();
  outcomes = now;
}

let touched = false;

function onRows(message) {
  fleet.take(message);
  soon.hours();
  const first = fleet.registrations()[0];
  if (!touched && !aircraft.choice() && first) { touched = true; aircraft.choose(first); }
  if (message.rows.some((r) => r.registration_number === aircraft.choice())) soon.aircraft();
  else soon.others();
}

function link(state, words) {
  $('link').dataset.state = state;
  text($('link-text'), words);
}

async function health() {
  try {
    const answer = await ask('/api/v1/streaming/health');
    pipeline.showHealth(answer);
  } catch (fault) {
    if (fault.body?.checks) pipeline.showHealth(fault.body);
    else text($('health'), fault.message);
  }
}

pipeline.start();
aircraft.start(about);
hours.start();
letters.start();
registry.start(about);

if (about.keys && !key.get()) {
  askForKey('');
} else {
  health();
  setInterval(health, 10000);
  letters.refresh();
  hours.refresh();
  if (about.registry) registry.refresh();
  listen('/api/v1/streaming/updates', {
    up: () => link('up', 'live'),
    down: (why) => { link('down', 'reconnecting'); $('link').dataset.tip = why; },
    event: (name, data) => { if (name === 'pipeline') onPipeline(data); else if (name === 'rows') onRows(data); },
  });
}
document.documentElement.dataset.ready = 'true';
