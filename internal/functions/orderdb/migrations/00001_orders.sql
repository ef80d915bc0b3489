-- +goose Up
CREATE TABLE orders (
    id          uuid        PRIMARY KEY,           -- the event's id: what makes a repeated write harmless
    customer    text,
    sku         text        NOT NULL,
    quantity    integer,
    body        jsonb       NOT NULL,              -- the whole order
    accepted_at timestamptz NOT NULL,              -- the 202
    created_at  timestamptz NOT NULL DEFAULT now() -- the row
);

-- GET /orders, newest first. Ids that come from an Idempotency-Key say nothing of time.
CREATE INDEX orders_newest ON orders (accepted_at, id);

-- +goose Down
DROP TABLE orders;
