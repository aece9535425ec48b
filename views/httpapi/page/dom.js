// Building blocks of the page: elements, numbers, times.

export const $ = (id) => document.getElementById(id);

// h makes an element: h('td', {class: 'n', on: {click}}, 'text', child).
export function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

// s makes an SVG element.
export function s(tag, attributes = {}, ...children) {
  return fill(document.createElementNS('http://www.w3.org/2000/svg', tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === 'on') for (const [event, handler] of Object.entries(value)) element.addEventListener(event, handler);
    else if (name === 'vars') for (const [key, v] of Object.entries(value)) element.style.setProperty(key, v);
    else element.setAttribute(name, value === true ? '' : value);
  }
  element.append(...children.flat().filter((c) => c !== null && c !== undefined && c !== false));
  return element;
}

// arrange gives a box these children. What is there already stays where it is, so that an element under the pointer, open or
// being typed into is not exchanged for its like; one that has to move keeps the focus.
export function arrange(box, items) {
  const focused = document.activeElement;
  const wanted = new Set(items);
  for (const child of [...box.children]) if (!wanted.has(child)) child.remove();
  items.forEach((item, i) => { if (box.children[i] !== item) box.insertBefore(item, box.children[i] ?? null); });
  if (focused && focused !== document.activeElement && focused.isConnected) focused.focus({ preventScroll: true });
}

// known finds the children of a box by their data-key.
export const known = (box) => new Map([...(box?.children ?? [])].map((child) => [child.dataset.key, child]));

// text sets an element's text only if it changed, so that nothing is laid out again for nothing.
export function text(element, value) {
  if (element.textContent !== value) element.textContent = value;
}

const whole = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat('en', { notation: 'compact', maximumFractionDigits: 1 });

export const number = (n) => (n === null || n === undefined ? '–' : whole.format(n));
export const compact = (n) => (n < 10000 ? whole.format(n) : short.format(n));

// rate is a number per second, with a digit behind the point where it is small.
export function rate(n) {
  if (!n) return '0';
  return n < 10 ? n.toFixed(1) : compact(Math.round(n));
}

// time is a timestamp without what everybody knows: milliseconds and the zone.
export const time = (iso) => (iso ? iso.replace('T', ' ').replace(/(\.\d+)?Z$/, '') : '–');

const units = [[864e5, 'd'], [36e5, 'h'], [6e4, 'min'], [1e3, 's']];

// duration says a number of milliseconds in its two largest units.
export function duration(ms) {
  const parts = [];
  for (const [size, name] of units) {
    const n = Math.floor(ms / size);
    if (n > 0) parts.push(`${n} ${name}`);
    ms -= n * size;
    if (parts.length === 2) break;
  }
  return parts.join(' ') || '0 s';
}

// span is a window's interval: the second day is left out when it is the first.
export function span(start, end) {
  const [a, b] = [time(start), time(end)];
  const [day, from] = [a.slice(0, 10), a.slice(11, 16)];
  return b.slice(0, 10) === day ? `${day} ${from}–${b.slice(11, 16)}` : `${day} ${from} – ${b.slice(0, 16)}`;
}

// calm calls f soon, but not more often than every `ms`, and the last call is never lost.
export function calm(f, ms) {
  let timer = 0, last = 0;
  return () => {
    if (timer) return;
    timer = setTimeout(() => { timer = 0; last = Date.now(); f(); }, Math.max(0, last + ms - Date.now()));
  };
}

// tip shows text beside the pointer or the focused element of anything that has data-tip.
export function tips(box) {
  const show = (target, x, y) => {
    box.textContent = target.dataset.tip;
    box.hidden = false;
    const { width, height } = box.getBoundingClientRect();
    box.style.left = `${Math.max(4, Math.min(x + 12, innerWidth - width - 4))}px`;
    box.style.top = `${y - height - 12 < 4 ? y + 16 : y - height - 12}px`;
  };
  const of = (event) => event.target.closest?.('[data-tip]');
  addEventListener('pointermove', (e) => { const t = of(e); if (t) show(t, e.clientX, e.clientY); else box.hidden = true; }, { passive: true });
  addEventListener('focusin', (e) => { const t = of(e); if (t) { const r = t.getBoundingClientRect(); show(t, r.x + r.width / 2, r.y); } else box.hidden = true; });
  addEventListener('scroll', () => { box.hidden = true; }, { passive: true });
}
