// What a client does with jobs, by libraries that others wrote. Each check is one of them; a line for each says how it
// went. The function answers "quick" at once, "slow" a little later, "wrong" with a problem, and "large" with a result that
// is at an address of its own.
import { createRequire } from "node:module";
import { EventSource } from "eventsource";
import { fetchEventSource } from "@microsoft/fetch-event-source";
import { WebSocket } from "ws";
import * as undici from "undici";
import got from "got";
import axios from "axios";
import { createHttpPoller } from "@azure/core-lro";

const base = process.argv[2];
const require = createRequire(import.meta.url);

// What libraries for browsers expect to be there.
globalThis.window = globalThis;
globalThis.addEventListener ??= () => {};
globalThis.document = { hidden: false, readyState: "complete", addEventListener() {}, removeEventListener() {} };

const submit = async (body, headers = {}) => {
  const answer = await fetch(base + "/reports", { method: "POST", body, headers: { "Content-Type": "text/plain", ...headers } });
  if (answer.status !== 202) throw new Error(`submitted: ${answer.status} ${await answer.text()}`);
  return { job: await answer.json(), answer };
};
const same = (got, want) => {
  if (JSON.stringify(got) !== JSON.stringify(want)) throw new Error(`got ${JSON.stringify(got)}, want ${JSON.stringify(want)}`);
};
const within = (promise, seconds = 20) => Promise.race([promise, new Promise((_, no) => setTimeout(() => no(new Error("took too long")), seconds * 1000).unref())]);

// untilSucceeded reads states from an EventSource, and fails on an event that is none.
const untilSucceeded = (source) =>
  new Promise((yes, no) => {
    const states = [];
    source.addEventListener("message", (e) => no(new Error("an event without a name: " + e.data)));
    source.addEventListener("state", (e) => {
      const state = JSON.parse(e.data);
      if (e.lastEventId !== state.version) no(new Error("id " + e.lastEventId));
      states.push(state.status);
      if (state.status === "succeeded") yes(states);
    });
  }).finally(() => source.close());
const ends = (states) => same([states.at(-1), new Set(states).size], ["succeeded", states.length]);

const checks = {
  async "eventsource"() {
    const { job } = await submit("slow");
    ends(await untilSucceeded(new EventSource(base + job.links.events)));
  },
  async "event-source-polyfill"() {
    const { EventSourcePolyfill } = require("event-source-polyfill");
    const { job } = await submit("slow");
    ends(await untilSucceeded(new EventSourcePolyfill(base + job.links.events)));
  },
  async "undici EventSource"() {
    const { job } = await submit("slow");
    ends(await untilSucceeded(new undici.EventSource(base + job.links.events)));
  },
  async "fetch-event-source"() {
    const { job } = await submit("slow");
    const states = [];
    const stop = new AbortController();
    await fetchEventSource(base + job.links.events, {
      signal: stop.signal,
      fetch,
      openWhenHidden: true,
      onmessage(m) {
        if (m.event !== "state") throw new Error(`an event ${JSON.stringify(m)}`);
        states.push(JSON.parse(m.data).status);
      },
      onerror(err) {
        throw err;
      },
    });
    ends(states);
  },
  async "an EventSource that comes back by its query"() {
    const { job } = await submit("quick");
    let last;
    const first = new EventSource(base + job.links.events);
    await new Promise((yes) =>
      first.addEventListener("state", (e) => {
        last = e.lastEventId;
        if (JSON.parse(e.data).status === "succeeded") yes();
      }),
    );
    first.close();
    same((await fetch(`${base}${job.links.events}?lastEventId=${last}`)).status, 204);
  },
  async "ws"() {
    const { job } = await submit("slow");
    const states = [];
    const socket = new WebSocket(base.replace("http", "ws") + job.links.socket, ["weir.v1"]);
    const code = await new Promise((yes, no) => {
      socket.on("message", (m) => states.push(JSON.parse(m).status));
      socket.on("close", yes);
      socket.on("error", no);
    });
    ends(states);
    same([code, socket.protocol], [1000, "weir.v1"]);
  },
  async "undici WebSocket"() {
    const { job } = await submit("slow");
    const states = [];
    const socket = new undici.WebSocket(base.replace("http", "ws") + job.links.socket);
    const code = await new Promise((yes, no) => {
      socket.onmessage = (m) => states.push(JSON.parse(m.data).status);
      socket.onclose = (e) => yes(e.code);
      socket.onerror = (e) => no(e.error ?? new Error("error"));
    });
    ends(states);
    same(code, 1000);
  },
  async "ws for many jobs"() {
    const jobs = [(await submit("slow")).job, (await submit("quick")).job];
    const socket = new WebSocket(base.replace("http", "ws") + "/weir/jobs/socket");
    const done = new Set();
    await new Promise((yes, no) => {
      socket.on("open", () => jobs.forEach((j) => socket.send(JSON.stringify({ watch: j.id }))));
      socket.on("error", no);
      socket.on("message", (m) => {
        const state = JSON.parse(m);
        if (state.status === "succeeded") done.add(state.id);
        if (done.size === jobs.length) yes();
      });
    });
    socket.close();
  },
  async "got, along Location and redirects"() {
    const posted = await got.post(base + "/reports", { body: "large", headers: { "content-type": "text/plain" } });
    let result;
    do {
      result = await got(base + posted.headers.location, { headers: { prefer: "wait=10" } });
    } while (result.statusCode === 202);
    same([result.statusCode, result.body.length, result.headers["content-type"]], [200, 400000, "text/csv"]);
  },
  async "axios, with long polls"() {
    const { job } = await submit("slow");
    let tag = "";
    let state;
    do {
      const answer = await axios.get(base + job.links.self, {
        headers: { Prefer: "wait=10", "If-None-Match": tag },
        validateStatus: (s) => s === 200 || s === 304,
      });
      if (answer.status === 200) ({ data: state, headers: { etag: tag } } = answer);
    } while (state.status !== "succeeded");
    same((await axios.get(base + job.links.result)).data, { ok: true });
  },
  async "axios, a problem"() {
    const { job } = await submit("wrong");
    const answer = await axios.get(base + job.links.result, { headers: { Prefer: "wait=20" }, validateStatus: () => true });
    same([answer.status, answer.data.title, answer.headers["content-type"]], [422, "No such format", "application/problem+json"]);
  },
  async "undici, a download that goes on"() {
    const { job } = await submit("large");
    const first = await undici.request(base + job.links.result, { headers: { prefer: "wait=20" } });
    same(first.statusCode, 303);
    await first.body.dump();
    const url = base + first.headers.location;
    const head = await undici.request(url, { headers: { range: "bytes=0-99999" } });
    const start = await head.body.text();
    const rest = await undici.request(url, { headers: { range: "bytes=100000-", "if-range": head.headers.etag } });
    same([head.statusCode, rest.statusCode, (start + (await rest.body.text())).length], [206, 206, 400000]);
    same((await undici.request(url, { headers: { "if-none-match": head.headers.etag } })).statusCode, 304);
  },
  async "undici, an upload"() {
    const ask = await undici.request(base + "/weir/uploads", { method: "POST", body: JSON.stringify({ path: "/reports", size: 5, contentType: "text/plain" }), headers: { "content-type": "application/json" } });
    const upload = await ask.body.json();
    const put = await undici.request(base + upload.url, { method: upload.method, body: "quick", headers: { "content-type": "text/plain" } });
    same(put.statusCode, 200);
    await put.body.dump();
    const { job } = await submit(undefined, { "Weir-Input": upload.id, Prefer: "respond-async" });
    const result = await undici.request(base + job.links.result, { headers: { prefer: "wait=20" } });
    same([result.statusCode, await result.body.json()], [200, { ok: true }]);
  },
  async "undici, compressed"() {
    const { gzipSync } = await import("node:zlib");
    const posted = await undici.request(base + "/reports", { method: "POST", body: gzipSync("quick"), headers: { "content-encoding": "gzip", "content-type": "text/plain", prefer: "wait=20" } });
    same([posted.statusCode, await posted.body.json()], [200, { ok: true }]);
  },
};

// core-lro polls as Azure's clients do: by the status at Operation-Location, and without that along Location.
for (const [name, hidden, refusal] of [
  ["core-lro", "", "The long-running operation has failed"],
  ["core-lro, along Location alone", "operation-location", "422 No such format"],
]) {
  for (const [input, want] of [["slow", { ok: true }], ["wrong", refusal]]) {
    checks[`${name}, ${input}`] = async () => {
      const ask = async (path, init) => {
        const answer = await fetch(new URL(path, base), init);
        const headers = Object.fromEntries(answer.headers);
        delete headers[hidden];
        const text = await answer.text();
        if (answer.status >= 400) throw new Error(`${answer.status} ${JSON.parse(text).title}`);
        const body = text && headers["content-type"]?.includes("json") ? JSON.parse(text) : text;
        return { flatResponse: body, rawResponse: { statusCode: answer.status, headers, body } };
      };
      const poller = await createHttpPoller(
        {
          requestMethod: "POST",
          requestPath: "/reports",
          sendInitialRequest: () => ask("/reports", { method: "POST", body: input, headers: { "Content-Type": "text/plain" } }),
          sendPollRequest: (path) => ask(path),
        },
        { intervalInMs: 50 },
      );
      const outcome = await poller.pollUntilDone().then(
        (result) => result,
        (err) => err.message,
      );
      same(outcome, want);
    };
  }
}

let failed = 0;
for (const [name, check] of Object.entries(checks)) {
  try {
    await within(check());
    console.log(`ok ${name}`);
  } catch (err) {
    failed++;
    console.log(`not ok ${name}: ${err?.stack ?? err}`);
  }
}
console.log(`${Object.keys(checks).length} checks, ${failed} failed`);
process.exit(failed ? 1 : 0);
