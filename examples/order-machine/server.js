// Three functions of a state machine, without any SDK. A task gets its payload alone, as JSON, and answers with JSON. A failure is
// a status of 4xx or 5xx with {"error", "cause"}, which Retry and Catch go by; 503 means "not now", and spends no retry.
const http = require("node:http");

const declined = new Map(); // how often, by order

const functions = {
  "check-stock": ({ sku }) => ({ inStock: sku !== "unicorn" }),
  "charge-card": ({ orderId, card }) => {
    const times = declined.get(orderId) ?? 0;
    if (card === "flaky" && times < 2) {
      declined.set(orderId, times + 1);
      throw { error: "CardDeclinedTemporarily", cause: "try again" };
    }
    return { charged: true };
  },
  "ship-order": ({ sku }) => ({ shipped: sku }),
};

http
  .createServer((req, res) => {
    let text = "";
    req.on("data", (chunk) => (text += chunk));
    req.on("end", () => {
      const name = req.url.slice(1);
      let status = 200;
      let answer;
      try {
        answer = functions[name](JSON.parse(text));
      } catch (e) {
        status = 500;
        answer = e.error ? e : { error: "Unexpected", cause: String(e) };
      }
      console.log(name, status, JSON.stringify(answer));
      res.writeHead(status, { "Content-Type": "application/json" });
      res.end(JSON.stringify(answer));
    });
  })
  .listen(Number(process.env.PORT ?? 9000), "127.0.0.1");
