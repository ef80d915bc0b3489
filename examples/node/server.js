// Keeps customers that are PUT, without any SDK or package.
'use strict';
const http = require('node:http');

// A call has at most the mapping's batch.maxBytes of bodies, 4 MiB unless it says otherwise.
const maxBody = 16 * 1024 * 1024;

// bodyOf returns the request's body: JSON is in data, any other body in data_base64, an empty one in neither.
function bodyOf(e) {
  if (e.data_base64 !== undefined) return Buffer.from(e.data_base64, 'base64').toString();
  return e.data === undefined ? '' : JSON.stringify(e.data).replace(/":/g, '": ');
}

// store prints a customer; write yours to a database by e.id, so that a record that comes again changes nothing.
function store(e, text) {
  if (!e.customer) throw new Error('no customer');
  console.log(`${e.weirmethod} ${e.subject} customer=${e.customer} tenant=${e.tenant} lang=${e.lang ?? ''} ${text}`);
}

const server = http.createServer(async (req, res) => {
  const answer = (status, value) => {
    res.writeHead(status, { 'Content-Type': 'application/json' });
    res.end(JSON.stringify(value));
  };
  try {
    const chunks = [];
    let size = 0;
    for await (const chunk of req) { // read the body before answering
      size += chunk.length;
      if (size > maxBody) return answer(413, { error: 'too large' });
      chunks.push(chunk);
    }
    let events;
    try {
      events = JSON.parse(Buffer.concat(chunks).toString());
    } catch {
      return answer(400, { error: 'not a batch of CloudEvents' }); // permanent: the batch is bisected
    }
    const failed = [];
    for (const e of events) {
      try {
        store(e, bodyOf(e));
      } catch (err) {
        failed.push({ itemIdentifier: e.id, reason: err.message }); // it alone comes again
      }
    }
    answer(200, { batchItemFailures: failed });
  } catch (err) {
    console.error(err);
    if (!res.headersSent) answer(500, { error: 'failed' }); // an attempt is counted for all
  }
});

server.listen(process.env.PORT || 8080, process.env.HOST); // Knative sets PORT; without HOST it is all interfaces
process.on('SIGTERM', () => server.close());
