// The API as the page uses it: JSON with a key, problems as errors, and the stream of updates.

const place = 'klgstream-key';

export const key = {
  get: () => sessionStorage.getItem(place) ?? '',
  set: (value) => sessionStorage.setItem(place, value),
};

// Problem is an answer of the API that is not what was asked for.
export class Problem extends Error {
  constructor(status, body) {
    const faults = (body.errors ?? []).map((e) => `${(e.location ?? '').replace(/^body\./, '')} ${e.message}`.trim());
    super([body.detail ?? body.title ?? `answer ${status}`, ...faults].join('; '));
    this.status = status;
    this.body = body;
  }
}

function headers(more = {}) {
  return key.get() ? { ...more, Authorization: `Bearer ${key.get()}` } : more;
}

let onUnauthorised = () => {};
export function whenUnauthorised(f) { onUnauthorised = f; }

async function refuse(answer) {
  const body = await answer.json().catch(() => ({}));
  if (answer.status === 401 || answer.status === 403) onUnauthorised(body.detail);
  throw new Problem(answer.status, body);
}

// ask gets JSON.
export async function ask(path, parameters = {}) {
  const query = new URLSearchParams(parameters).toString();
  const answer = await fetch(query ? `${path}?${query}` : path, { headers: headers() });
  return answer.ok ? answer.json() : refuse(answer);
}

// view asks for one page of a view.
export const view = (name, parameters) => ask(`/api/v1/streaming/views/${name}`, parameters);

// tell sends JSON and returns {status, location, body}.
export async function tell(method, path, body, more = {}) {
  const answer = await fetch(path, { method, headers: headers({ 'Content-Type': 'application/json', ...more }), body: JSON.stringify(body) });
  if (!answer.ok) return refuse(answer);
  return { status: answer.status, location: answer.headers.get('Location'), body: await answer.json() };
}

// listen follows the stream for ever, and says when it is up or down. fetch instead of EventSource: that one cannot send a key.
export async function listen(path, { up, down, event }) {
  for (let wait = 500; ; wait = Math.min(wait * 2, 15000)) {
    try {
      const answer = await fetch(path, { headers: headers({ Accept: 'text/event-stream' }), cache: 'no-store' });
      if (!answer.ok) await refuse(answer);
      up();
      wait = 500;
      await read(answer.body.pipeThrough(new TextDecoderStream()).getReader(), event);
      down('the stream ended');
    } catch (fault) {
      down(fault.message);
      if (fault.status === 401 || fault.status === 403) return;
    }
    await new Promise((resolve) => setTimeout(resolve, wait * (0.5 + Math.random())));
  }
}

async function read(reader, event) {
  let rest = '';
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split('\n\n');
    rest = blocks.pop();
    for (const block of blocks) dispatch(block, event);
  }
}

function dispatch(block, event) {
  let name = 'message', data = '';
  for (const line of block.split('\n')) {
    if (line.startsWith('event: ')) name = line.slice(7);
    else if (line.startsWith('data: ')) data += line.slice(6);
  }
  if (data) event(name, JSON.parse(data));
}
