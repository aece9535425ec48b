// Renders the OpenAPI document and lets a person try each operation.

import { key } from './api.js';
import { $, h } from './dom.js';

document.documentElement.dataset.theme = localStorage.getItem('klgstream-theme') ?? 'auto';

const doc = await (await fetch('/openapi.json')).json();
document.title = `${doc.info.title} API`;
$('title').textContent = `${doc.info.title} API ${doc.info.version}`;
$('summary').textContent = doc.info.description ?? '';

const operations = Object.entries(doc.paths).flatMap(([path, item]) => Object.entries(item).map(([method, op]) => ({ path, method, ...op })));
for (const tag of doc.tags ?? []) {
  const of = operations.filter((o) => o.tags?.[0] === tag.name);
  if (!of.length) continue;
  $('toc').append(h('h2', {}, tag.description ?? tag.name), ...of.map((o) => h('a', { href: `#${o.operationId}` }, badge(o), h('code', {}, o.path), h('span', { class: 'soft' }, o.summary))));
  $('operations').append(...of.map(operation));
}
for (const [name, schema] of Object.entries(doc.components?.schemas ?? {})) {
  $('schemas').append(h('details', { id: `schema-${name}` }, h('summary', {}, name), fields(schema)));
}
if (location.hash) document.querySelector(location.hash)?.scrollIntoView();

function badge(o) { return h('span', { class: `method ${o.method}` }, o.method.toUpperCase()); }

// prose turns `code` into code; nothing else of a description is markup.
function prose(words = '') {
  return words.split('`').map((part, i) => (i % 2 ? h('code', {}, part) : part));
}

function operation(o) {
  return h('section', { class: 'card operation', id: o.operationId, 'aria-label': o.summary },
    h('h2', {}, badge(o), o.path), h('p', {}, h('b', {}, o.summary)), o.description && h('p', {}, ...prose(o.description)),
    o.parameters?.length ? h('h3', {}, 'Parameters') : null, o.parameters?.length ? parameters(o.parameters) : null,
    o.requestBody ? [h('h3', {}, 'Body'), ...Object.values(o.requestBody.content).flatMap((c) => [typeLine(c.schema), ...Object.values(c.examples ?? {}).map((e) => h('pre', { tabindex: 0 }, JSON.stringify(e.value, null, 2)))])] : null,
    h('h3', {}, 'Answers'), h('div', { class: 'scroll' }, h('table', {}, h('tbody', {}, ...Object.entries(o.responses).sort().map(([code, r]) => h('tr', {}, h('th', { scope: 'row' }, code), h('td', {}, r.description ?? ''),
      h('td', {}, ...Object.entries(r.content ?? {}).flatMap(([type, c]) => [h('code', {}, type), ' ', typeName(c.schema), h('br')]))))))),
    attempt(o));
}

function parameters(list) {
  return h('div', { class: 'scroll' }, h('table', {}, h('tbody', {}, ...list.map((p) => h('tr', {},
    h('th', { scope: 'row' }, h('code', {}, p.name), p.required ? ' *' : ''), h('td', { class: 'soft' }, p.in), h('td', {}, typeName(p.schema), p.description ? [' ', ...prose(p.description)] : ''))))));
}

function resolve(schema) {
  const name = schema?.$ref?.split('/').pop();
  return name ? doc.components.schemas[name] : schema;
}

// typeName says a schema in a few words, with a link where it has a name.
function typeName(schema) {
  if (!schema) return '';
  const name = schema.$ref?.split('/').pop();
  if (name) return h('a', { href: `#schema-${name}`, on: { click: () => { $(`schema-${name}`).open = true; } } }, name);
  const type = [schema.type].flat().filter(Boolean).join(' or ');
  if (schema.type === 'array' || [schema.type].flat().includes('array')) return h('span', {}, 'array of ', typeName(schema.items));
  if (schema.oneOf || schema.anyOf) return h('span', {}, ...(schema.oneOf ?? schema.anyOf).flatMap((s, i) => [i ? ' or ' : '', typeName(s)]));
  const bounds = [schema.format, schema.enum && schema.enum.join(' | '), schema.minimum !== undefined && `≥ ${schema.minimum}`, schema.maximum !== undefined && `≤ ${schema.maximum}`,
    schema.minLength && `≥ ${schema.minLength} characters`, schema.maxLength && `≤ ${schema.maxLength} characters`, schema.default !== undefined && `default ${schema.default}`].filter(Boolean);
  return h('span', { class: 'soft' }, [schema.title ?? type, ...bounds].join(', '));
}

function typeLine(schema) { return h('p', {}, typeName(schema)); }

function fields(schema) {
  const of = resolve(schema);
  return h('div', { class: 'scroll' }, h('table', {}, h('tbody', {}, ...Object.entries(of.properties ?? {}).map(([name, p]) => h('tr', {},
    h('th', { scope: 'row' }, h('code', {}, name), of.required?.includes(name) ? ' *' : ''), h('td', {}, typeName(p)), h('td', {}, p.description ?? ''))))));
}

// attempt is a form that sends the operation and shows the answer.
function attempt(o) {
  if (o.operationId === 'stream-updates') return h('p', { class: 'soft' }, 'Try: ', h('code', {}, `curl -N ${location.origin}${o.path}`));
  const inputs = (o.parameters ?? []).map((p) => h('label', { class: 'field' }, h('span', {}, `${p.name}${p.required ? ' *' : ''}`),
    h('input', { name: p.name, required: p.required, 'data-in': p.in, value: p.required ? (p.example ?? '') : '', placeholder: p.name === 'filter' ? 'registration_number=N14228&event_count.ge=3' : '' })));
  const example = Object.values(o.requestBody?.content ?? {})[0];
  const body = o.requestBody && h('textarea', { 'aria-label': 'Body', spellcheck: 'false' }, JSON.stringify(Object.values(example.examples ?? {})[0]?.value ?? sample(example.schema), null, 2));
  const out = h('pre', { hidden: '', tabindex: 0, 'aria-live': 'polite' });
  const send = async (e) => {
    e.preventDefault();
    let path = o.path;
    const query = new URLSearchParams(), headers = key.get() ? { Authorization: `Bearer ${key.get()}` } : {};
    for (const input of e.target.querySelectorAll('input')) {
      if (!input.value) continue;
      if (input.dataset.in === 'path') path = path.replace(`{${input.name}}`, encodeURIComponent(input.value));
      else if (input.dataset.in === 'header') headers[input.name] = input.value;
      else if (input.name === 'filter') for (const [k, v] of new URLSearchParams(input.value)) query.append(k, v);
      else query.append(input.name, input.value);
    }
    if (body) headers['Content-Type'] = 'application/json';
    const answer = await fetch(`${path}${query.size ? `?${query}` : ''}`, { method: o.method.toUpperCase(), headers, body: body?.value });
    const words = await answer.text();
    let shown = words;
    try { shown = JSON.stringify(JSON.parse(words), null, 2); } catch { /* not JSON: as it came */ }
    out.hidden = false;
    out.textContent = `${answer.status} ${answer.statusText}\n${shown.slice(0, 20000)}`;
  };
  return h('details', { class: 'try' }, h('summary', {}, 'Try it'), h('form', { on: { submit: send } }, ...inputs, body, h('div', {}, h('button', { class: 'primary' }, 'Send'))), out);
}

// sample makes a value that fits a schema.
function sample(schema) {
  const of = resolve(schema) ?? {};
  if (of.examples?.length) return of.examples[0];
  if (of.example !== undefined) return of.example;
  const type = [of.type].flat()[0];
  if (type === 'object') return Object.fromEntries(Object.entries(of.properties ?? {}).map(([name, p]) => [name, sample(p)]));
  return { string: '', integer: 1, number: 1, boolean: false, array: [] }[type] ?? null;
}
