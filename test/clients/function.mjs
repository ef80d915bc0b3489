// A function on the CloudEvents SDK for JavaScript: it says in a line what it reads of each event.
import { createServer } from "node:http";
import { HTTP } from "cloudevents";

const server = createServer((request, answer) => {
  const chunks = [];
  request.on("data", (c) => chunks.push(c));
  request.on("end", () => {
    try {
      const events = [HTTP.toEvent({ headers: request.headers, body: Buffer.concat(chunks).toString() })].flat();
      for (const e of events) {
        const data = e.data_base64 ? Buffer.from(e.data_base64, "base64").toString() : typeof e.data === "string" ? e.data : JSON.stringify(e.data);
        console.log(JSON.stringify({ id: e.id, source: e.source, said: decodeURIComponent(e.weirmediatype ?? "") || e.datacontenttype, data, batch: request.headers["content-type"] }));
      }
      answer.writeHead(204).end();
    } catch (err) {
      console.log(JSON.stringify({ error: String(err), contentType: request.headers["content-type"] }));
      answer.writeHead(500).end();
    }
  });
});
server.listen(0, "127.0.0.1", () => console.log(JSON.stringify({ port: server.address().port })));
