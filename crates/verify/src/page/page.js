'use strict';
(() => {
const facts = JSON.parse(document.getElementById('facts').textContent);
const $ = (id) => document.getElementById(id);
const bytesOf = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
const hex = (bytes) => Array.from(bytes, (b) => b.toString(16).padStart(2, '0')).join('');
const utf8 = new TextEncoder();
const number = (n) => n.toLocaleString('en-US');

// ---- SHA-256 (FIPS 180-4). Web Crypto has it too, but not on every page, and only one call at a time.
const K = (() => {
  const primes = [], root = (n, e) => { const x = n ** e; return ((x - Math.floor(x)) * 2 ** 32) | 0; };
  for (let n = 2; primes.length < 64; n++) if (primes.every((p) => n % p)) primes.push(n);
  return { k: primes.map((p) => root(p, 1 / 3)), h: primes.slice(0, 8).map((p) => root(p, 1 / 2)) };
})();
function sha256(...parts) {
  const length = parts.reduce((sum, part) => sum + part.length, 0);
  const data = new Uint8Array(((length + 8 >> 6) + 1) << 6), view = new DataView(data.buffer);
  let at = 0;
  for (const part of parts) { data.set(part, at); at += part.length; }
  data[length] = 128;
  view.setBigUint64(data.length - 8, BigInt(length) * 8n);
  const h = Int32Array.from(K.h), w = new Int32Array(64);
  for (let block = 0; block < data.length; block += 64) {
    for (let i = 0; i < 16; i++) w[i] = view.getInt32(block + 4 * i);
    for (let i = 16; i < 64; i++) {
      const x = w[i - 15], y = w[i - 2];
      w[i] = w[i - 16] + w[i - 7] + ((x >>> 7 | x << 25) ^ (x >>> 18 | x << 14) ^ x >>> 3)
        + ((y >>> 17 | y << 15) ^ (y >>> 19 | y << 13) ^ y >>> 10);
    }
    let [a, b, c, d, e, f, g, z] = h;
    for (let i = 0; i < 64; i++) {
      const one = z + ((e >>> 6 | e << 26) ^ (e >>> 11 | e << 21) ^ (e >>> 25 | e << 7)) + ((e & f) ^ (~e & g)) + K.k[i] + w[i] | 0;
      const two = ((a >>> 2 | a << 30) ^ (a >>> 13 | a << 19) ^ (a >>> 22 | a << 10)) + ((a & b) ^ (a & c) ^ (b & c)) | 0;
      z = g; g = f; f = e; e = d + one | 0; d = c; c = b; b = a; a = one + two | 0;
    }
    [a, b, c, d, e, f, g, z].forEach((value, i) => { h[i] = h[i] + value | 0; });
  }
  const out = new DataView(new ArrayBuffer(32));
  h.forEach((value, i) => out.setInt32(4 * i, value));
  return new Uint8Array(out.buffer);
}

// ---- JSON whose numbers keep every digit
class Digits { constructor(text) { this.text = text; } }
function parse(text) {
  let at = 0;
  const token = /[ \t\n\r]*(?:([{}[\],:])|("(?:[^"\\]|\\.)*")|(-?\d[\d.eE+-]*)|(true|false|null))/ys;
  const next = () => {
    token.lastIndex = at;
    const found = token.exec(text);
    if (!found) throw new Error('not JSON');
    at = token.lastIndex;
    return found;
  };
  const value = (found) => {
    if (found[2] !== undefined) return JSON.parse(found[2]);
    if (found[3] !== undefined) return new Digits(found[3]);
    if (found[4] !== undefined) return { true: true, false: false, null: null }[found[4]];
    if (found[1] === '[') return list(']', (found) => value(found));
    if (found[1] === '{') return new Map(list('}', (found) => { next(); return [JSON.parse(found[2]), value(next())]; }));
    throw new Error('not JSON');
  };
  const list = (end, element) => {
    const all = [];
    let found = next();
    while (found[1] !== end) {
      all.push(element(found));
      found = next();
      if (found[1] === ',') found = next();
    }
    return all;
  };
  return value(next());
}
function pretty(value, indent = '') {
  const inner = indent + '  ';
  if (value instanceof Digits) return value.text;
  if (Array.isArray(value) && value.length) return '[\n' + value.map((v) => inner + pretty(v, inner)).join(',\n') + '\n' + indent + ']';
  if (value instanceof Map) {
    if (!value.size) return '{}';
    const members = [...value].map(([key, v]) => inner + JSON.stringify(key) + ': ' + pretty(v, inner));
    return '{\n' + members.join(',\n') + '\n' + indent + '}';
  }
  return JSON.stringify(value);
}

// ---- SKR1: the bytes of a record that were signed
const COLUMNS = ['id', 'tenant_id', 'event_type', 'event_data', 'actor_id', 'actor_type', 'created_at', 'recorded_at', 'transaction_id',
  'session_user_name', 'current_user_name', 'key_id'];
const u32 = (n) => Uint8Array.of(n >>> 24, n >>> 16 & 255, n >>> 8 & 255, n & 255);
function concat(parts) {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) { all.set(part, at); at += part.length; }
  return all;
}
const uuid = (text) => Uint8Array.from(text.replaceAll('-', '').match(/../g), (pair) => parseInt(pair, 16));
function order(a, b) {
  const n = Math.min(a.length, b.length);
  for (let i = 0; i < n; i++) if (a[i] !== b[i]) return a[i] - b[i];
  return a.length - b.length;
}
function walk(value, out) {
  const text = (bytes) => out.push(u32(bytes.length), bytes);
  if (value === null) out.push([0]);
  else if (typeof value === 'boolean') out.push([value ? 2 : 1]);
  else if (value instanceof Digits) { out.push([3]); text(utf8.encode(value.text)); }
  else if (typeof value === 'string') { out.push([4]); text(utf8.encode(value)); }
  else if (Array.isArray(value)) { out.push([5], u32(value.length)); value.forEach((item) => walk(item, out)); }
  else {
    out.push([6], u32(value.size));
    const members = [...value].map(([key, item]) => [utf8.encode(key), item]).sort((a, b) => order(a[0], b[0]));
    for (const [key, item] of members) { text(key); walk(item, out); }
  }
}
function micros(text) {
  const [, y, month, day, hour, minute, second, fraction, bc] =
    /^(\d{4,})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)\.(\d{6})Z( BC)?$/.exec(text);
  const year = (bc ? 1 - y : +y) - (month > 2 ? 0 : 1), m = month > 2 ? month - 3 : +month + 9, floor = Math.floor;
  const days = 365 * year + floor(year / 4) - floor(year / 100) + floor(year / 400) + floor((153 * m + 2) / 5) + +day - 719469;
  return BigInt(((days * 24 + +hour) * 60 + +minute) * 60 + +second) * 1000000n + BigInt(fraction);
}
const eight = (n) => { const out = new DataView(new ArrayBuffer(8)); out.setBigUint64(0, BigInt.asUintN(64, n)); return new Uint8Array(out.buffer); };
const LOG = uuid(facts.log_id);
function encode(record) {
  const parts = [utf8.encode('SKR1'), LOG, [0, 1, 0, COLUMNS.length]];
  COLUMNS.forEach((name, i) => {
    const value = record.get(name);
    let kind = 6, data;
    if (name === 'event_data') {
      const out = [];
      walk(value, out);
      [kind, data] = [9, concat(out)];
      if (data.length > 32768) [kind, data] = [8, sha256(data)];
    } else if (value === null) [kind, data] = [0, []];
    else if (name === 'id') [kind, data] = [4, uuid(value)];
    else if (name.endsWith('_at')) [kind, data] = [7, eight(micros(value))];
    else if (name === 'transaction_id') [kind, data] = [2, eight(BigInt(value.text))];
    else data = utf8.encode(value);
    parts.push([0, i + 1, kind], u32(data.length), data);
  });
  return concat(parts);
}
/// The leaf of a line; nothing of a record that is gone but its hash.
function leafHash(record) {
  if (record.has('hash')) return bytesOf(record.get('hash'));
  const whole = [...COLUMNS, 'signature'].every((name) => record.get(name) !== null || ['actor_id', 'actor_type', 'event_data'].includes(name));
  if (!whole) return sha256([0], utf8.encode('SKR0'), LOG, uuid(record.get('id')));
  return sha256([0], encode(record), utf8.encode(record.get('signature')));
}

// ---- the tree (RFC 6962): hashes of complete subtrees that the page brings along, by their leaves
const node = (left, right) => sha256([1], left, right);
const nodes = new Map();
function cover(first, count, hashes) {
  const end = first + count;
  for (const hash of hashes) {
    let size = 1;
    while (first % (size * 2) === 0 && first + size * 2 <= end) size *= 2;
    nodes.set(first + '-' + (first + size), bytesOf(hash));
    first += size;
  }
}
cover(0, facts.start, facts.left);
cover(facts.end, facts.size - facts.end, facts.right);
facts.chunks.forEach(([first, count, hashes]) => cover(first, count, hashes));
facts.retired.forEach(([first, count, hashes]) => cover(first, count, hashes));
const split = (count) => { let k = 1; while (k * 2 < count) k *= 2; return k; };
function subtree(from, to, leaves) {
  const found = leaves.get(from + '-' + to) ?? (leaves.touches(from, to) ? undefined : nodes.get(from + '-' + to));
  if (found) return found;
  if (to - from <= 1) throw new Error('the hash of leaf ' + from + ' is missing');
  const middle = from + split(to - from);
  return node(subtree(from, middle, leaves), subtree(middle, to, leaves));
}
/// The way from a leaf up: each step with its sibling, and what both give.
function path(leaf, leaves) {
  const down = [];
  let from = 0, to = facts.size;
  while (to - from > 1) {
    const middle = from + split(to - from), left = leaf < middle;
    down.push({ left, from: left ? middle : from, to: left ? to : middle });
    [from, to] = left ? [from, middle] : [middle, to];
  }
  let hash = leaves.get(leaf + '-' + (leaf + 1));
  return down.reverse().map((step) => {
    const sibling = subtree(step.from, step.to, leaves), below = hash;
    hash = step.left ? node(hash, sibling) : node(sibling, hash);
    return { ...step, sibling, below, hash };
  });
}

// ---- the records, compressed in chunks
const chunks = facts.chunks.map(([first, count], i) => ({ first, count, i, lines: null }));
async function load(chunk) {
  chunk.lines ??= (async () => {
    const packed = new Blob([bytesOf($('c' + chunk.i).textContent)]).stream().pipeThrough(new DecompressionStream('deflate-raw'));
    const lines = (await new Response(packed).text()).split('\n');
    lines.pop();
    return lines;
  })();
  return chunk.lines;
}
const NAMES = new RegExp('"(?:leaf|signature|' + COLUMNS.join('|') + ')":', 'g');
let texts = null, types = null;
const typeOf = [];
/// Every line without the names of its columns, for searching.
function everything() {
  texts ??= (async () => {
    const all = [];
    types = new Map();
    for (const chunk of chunks) {
      for (const line of await load(chunk)) {
        all.push(line.replace(NAMES, '').toLowerCase());
        const type = /"event_type":("(?:[^"\\]|\\.)*")/.exec(line);
        typeOf.push(type?.[1]);
        if (type) types.set(type[1], (types.get(type[1]) ?? 0) + 1);
      }
      if (chunk.i % 40 === 39) {
        $('count').textContent = 'reading ' + number(all.length) + ' of ' + number(total) + ' records';
        await new Promise((done) => setTimeout(done));
      }
    }
    return all;
  })();
  return texts;
}

// ---- what is shown; values become text and nothing else, with what cannot be seen or turns the direction written out
const UNSEEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g;
const seen = (text) => String(text).replaceAll(UNSEEN, (c) => '\\u' + c.charCodeAt(0).toString(16).padStart(4, '0'));
function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = seen(text);
  Object.entries(attributes).forEach(([key, value]) => made.setAttribute(key, value));
  return made;
}
const rows = (list, pairs) => list.replaceChildren(...pairs.flatMap(([what, value]) => [element('dt', what), element('dd', value)]));
const COLOURS = { OK: 'good', TAMPERED: 'bad', INCOMPLETE: 'wait' };
const PAGE = 50;
const total = chunks.reduce((sum, chunk) => sum + chunk.count, 0);
let found = null, begin = 0, turn = 0;
const starts = [];
chunks.reduce((sum, chunk) => { starts.push(sum); return sum + chunk.count; }, 0);

async function line(position) {
  let chunk = starts.length - 1;
  for (let low = 0; low <= chunk;) {
    const middle = (low + chunk) >> 1;
    if (starts[middle] <= position) low = middle + 1; else chunk = middle - 1;
  }
  return (await load(chunks[chunk]))[position - starts[chunk]];
}
async function show() {
  const mine = ++turn, count = found ? found.length : total;
  const end = Math.min(begin + PAGE, count), items = [];
  for (let i = begin; i < end; i++) {
    const record = parse(await line(found ? found[i] : i)), leaf = record.get('leaf').text, item = element('li');
    const link = element('a', undefined, { href: '#leaf=' + leaf });
    const gone = record.has('missing') ? 'missing' : 'too large';
    link.append(element('b', record.has('hash') ? gone : record.get('event_type')), element('span', 'leaf ' + number(+leaf)),
      element('span', record.get('created_at') ?? '', { class: 'time' }), element('span', record.get('actor_id') ?? '', { class: 'time' }));
    if (!record.has('hash')) link.append(element('span', pretty(record.get('event_data')).replaceAll(/\n */g, ' ').slice(0, 300), { class: 'data' }));
    item.append(link);
    items.push(item);
  }
  if (mine !== turn) return;
  $('list').replaceChildren(...items);
  $('count').textContent = count ? number(begin + 1) + ' to ' + number(end) + ' of ' + number(count) : 'no record';
  $('back').disabled = begin === 0;
  $('next').disabled = end >= count;
  mark();
}
function mark() {
  for (const link of $('list').querySelectorAll('a')) {
    if (link.hash === location.hash) link.setAttribute('aria-current', 'true'); else link.removeAttribute('aria-current');
  }
}
async function search() {
  const mine = ++turn, typed = $('search').value.trim().toLowerCase(), type = $('type').value;
  if (!typed && !type) found = null;
  else {
    const words = typed.split(/\s+/).filter(Boolean).map((word) => JSON.stringify(word).slice(1, -1));
    const all = await everything();
    if (mine !== turn) return;
    found = [];
    all.forEach((text, i) => { if ((!type || typeOf[i] === type) && words.every((word) => text.includes(word))) found.push(i); });
  }
  begin = 0;
  await show();
}

const SVG = 'http://www.w3.org/2000/svg';
function drawing(steps, own) {
  const height = 52 * (steps.length + 1), top = (i) => height - 52 * (i + 1) + 8;
  const made = (name, attributes, text) => {
    const one = document.createElementNS(SVG, name);
    Object.entries(attributes).forEach(([key, value]) => one.setAttribute(key, value));
    if (text) one.textContent = text;
    return one;
  };
  const svg = made('svg', { viewBox: '0 0 340 ' + height, role: 'img', 'aria-label': 'The path of the proof, from the record at the bottom to the root at the top' });
  const middle = (i) => (i === steps.length ? 170 : steps[i].left ? 90 : 250);
  const box = (x, y, hash, kind, note) => svg.append(made('rect', { x: x - 62, y, width: 124, height: 32, rx: 4, class: kind }),
    made('text', { x, y: y + 14 }, hex(hash.slice(0, 6)) + '…'), made('text', { x, y: y + 26, class: 'note' }, note));
  steps.forEach((step, i) => {
    for (const x of [90, 250]) svg.append(made('line', { x1: x, y1: top(i), x2: middle(i + 1), y2: top(i + 1) + 32 }));
  });
  box(middle(0), top(0), own, 'path', 'this record');
  steps.forEach((step, i) => {
    box(340 - middle(i), top(i), step.sibling, 'sibling', number(step.to - step.from) + (step.to - step.from === 1 ? ' leaf' : ' leaves'));
    box(middle(i + 1), top(i + 1), step.hash, 'path', i === steps.length - 1 ? 'root' : 'computed');
  });
  return svg;
}
async function chunkOf(leaf) {
  for (const chunk of chunks) if (leaf >= chunk.first && leaf < chunk.first + chunk.count) return chunk;
  return null;
}
/// All leaves of the chunk are computed from its records; the hashes that came along stand for the others.
async function prove(chunk, leaf) {
  const leaves = new Map(), end = chunk.first + chunk.count;
  leaves.touches = (from, to) => from < end && to > chunk.first;
  (await load(chunk)).forEach((text, i) => leaves.set((chunk.first + i) + '-' + (chunk.first + i + 1), leafHash(parse(text))));
  const own = leaves.get(leaf + '-' + (leaf + 1)), steps = path(leaf, leaves);
  const root = steps.length ? steps[steps.length - 1].hash : own;
  return { own, steps, root, holds: hex(root) === hex(bytesOf(facts.root)) };
}
async function open() {
  const asked = /^#leaf=(\d+)$/.exec(location.hash);
  if (!asked) return;
  const leaf = +asked[1], chunk = await chunkOf(leaf), place = $('record');
  if (!chunk) { place.replaceChildren(element('p', 'This page has no record of leaf ' + leaf + '.')); return; }
  const record = parse((await load(chunk))[leaf - chunk.first]), list = element('dl');
  const status = element('p', undefined, { role: 'status' });
  let proof, why = 'the hashes do not give the root of the checkpoint';
  try { proof = await prove(chunk, leaf); } catch (error) { why = error.message; }
  const [kind, text] = proof?.holds
    ? record.has('hash') ? ['bad', 'Gone: only its hash leads to the root'] : ['good', 'Verified: computed from these values, it leads to the root']
    : ['bad', 'Not verified: ' + why];
  status.append(element('span', text, { class: 'verdict ' + kind, id: 'proven' }));
  rows(list, [...record].filter(([name]) => name !== 'event_data').map(([name, value]) => [name, value instanceof Digits ? value.text : String(value ?? 'NULL')]));
  const parts = [status, list];
  if (record.has('event_data')) parts.push(element('h3', 'event_data'), element('pre', pretty(record.get('event_data')), { tabindex: '0', 'aria-label': 'event_data' }));
  if (proof) {
    const steps = element('ol', undefined, { class: 'steps' });
    proof.steps.forEach((step) => {
      const item = element('li', (step.left ? 'right' : 'left') + ' sibling of ' + (step.to - step.from === 1 ? 'leaf ' + number(step.from) : 'leaves ' + number(step.from) + ' to ' + number(step.to - 1)));
      item.append(element('span', hex(step.sibling), { class: 'hash' }));
      steps.append(item);
    });
    const facts_ = element('dl');
    rows(facts_, [['leaf hash', hex(proof.own)], ['root computed', hex(proof.root)], ['root signed', hex(bytesOf(facts.root))]]);
    parts.push(element('h3', 'Proof'), facts_, drawing(proof.steps, proof.own), steps);
  }
  parts.push(element('a', 'Back to the records', { href: '#records' }));
  place.replaceChildren(...parts);
  $('chosen').textContent = 'Leaf ' + number(leaf);
  mark();
  $('chosen').focus();
  $('chosen').scrollIntoView();
}

async function signature() {
  const place = $('signature');
  const tell = (kind, text) => place.replaceChildren(element('span', text, { class: 'verdict ' + kind }));
  if (!facts.key) return tell('wait', 'No key was given: nothing shows whose checkpoint it is');
  const [body, signed] = facts.checkpoint.split('\n\n'), note = utf8.encode(body + '\n');
  try {
    const key = await crypto.subtle.importKey('raw', bytesOf(facts.key), { name: 'Ed25519' }, false, ['verify']);
    for (const one of signed.split('\n').filter((text) => text.startsWith('— ' + facts.origin + ' '))) {
      if (await crypto.subtle.verify('Ed25519', key, bytesOf(one.split(' ')[2]).slice(4), note)) {
        const [origin, size, root] = body.split('\n');
        if (origin === facts.origin && +size === facts.size && root === facts.root) return tell('good', 'The root is signed by the key, verified in this browser');
      }
    }
    return tell('bad', 'The root is not signed by the key');
  } catch {
    return tell('wait', 'This browser cannot verify Ed25519 here; skill-verify did when it wrote this page');
  }
}

$('verdict').textContent = facts.verdict;
$('verdict').className = 'verdict ' + COLOURS[facts.verdict];
$('sentence').textContent = facts.sentence + ' (found by skill-verify ' + facts.version + ' when it wrote this page)';
rows($('table'), facts.table);
if (facts.findings.length) {
  const place = $('findings');
  place.hidden = place.open = false;
  place.querySelector('summary').textContent = number(facts.problems) + ' problem' + (facts.problems === 1 ? '' : 's');
  place.querySelector('ul').replaceChildren(...facts.findings.map((text) => element('li', text)));
}
let timer;
$('search').addEventListener('input', () => { clearTimeout(timer); timer = setTimeout(search, 200); });
$('type').addEventListener('change', search);
$('back').addEventListener('click', () => { begin = Math.max(0, begin - PAGE); show(); });
$('next').addEventListener('click', () => { begin += PAGE; show(); });
addEventListener('hashchange', open);
signature();
show().then(open).then(everything).then(() => {
  const options = [...types].sort((a, b) => b[1] - a[1]).slice(0, 500);
  $('type').append(...options.map(([type, n]) => element('option', JSON.parse(type) + ' (' + number(n) + ')', { value: type })));
  if (!found) show();
  document.documentElement.dataset.ready = 'yes';
});
})();
