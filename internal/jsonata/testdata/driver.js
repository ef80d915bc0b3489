// Evaluates expressions with the reference. The first line of the input is a setup; every further line is a question
// {"x": expression, "d": document}, and one line answers it.
'use strict';
const setup = { now: 0, docs: [] };
const RealDate = Date;
globalThis.Date = class extends RealDate {
  constructor(...a) { if (a.length === 0) super(setup.now); else super(...a); }
};
let seed = 0;
Math.random = () => { seed = (seed * 1664525 + 1013904223) % 4294967296; return seed / 4294967296; };
const isFunction = v => typeof v === 'function' || (v !== null && typeof v === 'object' && (v._jsonata_lambda === true || v._jsonata_function === true));
const plain = (v, depth) => {
  if (depth > 200) throw new Error('too deep');
  if (v === undefined || v === null) return null;
  if (typeof v === 'number') return Number.isFinite(v) ? v : { $number: String(v) };
  if (typeof v === 'string') return v.toWellFormed();
  if (isFunction(v)) return null;
  if (Array.isArray(v)) { const out = []; for (let i = 0; i < v.length; i++) out.push(plain(v[i], depth + 1)); return out; }
  if (typeof v === 'object') {
    const out = []; // as a list of members, to show their order
    for (const k of Object.keys(v)) if (!isFunction(v[k]) && v[k] !== undefined) out.push([k.toWellFormed(), plain(v[k], depth + 1)]);
    return { $object: out };
  }
  return v;
};
const jsonata = require(process.argv[2]);
const outcome = async q => {
  try {
    seed = 1;
    const doc = setup.docs[q.d];
    const text = q.i === undefined ? doc : q.i;
    const input = text === undefined ? undefined : JSON.parse(text);
    const bindings = q.b || { given: JSON.parse('{"a":[1],"b":"x"}'), absent: undefined, nil: null };
    const v = await jsonata(q.x, { timeout: 3000, stack: 1500 }).evaluate(input, bindings);
    if (v === undefined) return { u: 1 };
    if (isFunction(v)) return { f: 1 };
    return { v: plain(v, 0) };
  } catch (e) {
    return e && e.code && /^[SDTU]\d{4}$/.test(e.code) ? { e: e.code, p: e.position || 0 } : { t: String((e && e.message) || e) };
  }
};
const lines = require('readline').createInterface({ input: process.stdin });
let first = true;
(async () => {
  for await (const line of lines) {
    const q = JSON.parse(line);
    if (first) { first = false; Object.assign(setup, q); continue; }
    let timer;
    const late = new Promise(r => { timer = setTimeout(() => r({ t: 'late' }), 5000); });
    const a = await Promise.race([outcome(q), late]);
    clearTimeout(timer);
    process.stdout.write(JSON.stringify(a) + '\n');
  }
})();
