package main

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
)

const (
	maxConns      = 256
	ordersPerConn = 256 // in its ring; a number in each order makes every pass distinct
)

// orderBook holds whole HTTP requests, ready to be sent: a ring of orders for each connection. A ring is
// used by one goroutine at a time.
type orderBook struct {
	rings [][]request
	bytes int // of bodies, on average
}

// request is one POST /orders. The 16 hexadecimal digits at stamp are overwritten for each use.
type request struct {
	wire  []byte
	stamp int
}

const stampMark = "0123456789abcdef"

// newOrderBook makes orders from a fixed seed: every run posts the same ones. target is what they are posted to; header
// are lines of each request, with their ends.
func newOrderBook(conns, each int, target, header string) *orderBook {
	rng := rand.New(rand.NewPCG(2019, 335))
	b := &orderBook{rings: make([][]request, conns)}
	total := 0
	for c := range b.rings {
		b.rings[c] = make([]request, each)
		for i := range b.rings[c] {
			body := newOrder(rng)
			total += len(body)
			wire := postOf(target, header, string(body))
			b.rings[c][i] = request{wire: wire, stamp: strings.Index(string(wire), stampMark)}
		}
	}
	b.bytes = total / (conns * each)
	return b
}

// sameBook is of requests that differ in their stamp alone, which stands in the body.
func sameBook(conns int, target, header, body string) *orderBook {
	b := &orderBook{rings: make([][]request, conns), bytes: len(body)}
	for c := range b.rings {
		wire := postOf(target, header, body)
		b.rings[c] = []request{{wire: wire, stamp: strings.Index(string(wire), stampMark)}}
	}
	return b
}

func postOf(target, header, body string) []byte {
	return fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%s\r\n%s", target, len(body), header, body)
}

// take returns the nth request of a connection. It is good until the same ring's next take.
func (b *orderBook) take(conn int, n uint64) []byte {
	ring := b.rings[conn]
	r := ring[n%uint64(len(ring))]
	// splitmix64's finaliser is a bijection: distinct numbers give distinct digits that look random.
	x := uint64(conn)<<40 | n
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	x ^= x >> 31
	var raw [8]byte
	binary.BigEndian.PutUint64(raw[:], x)
	hex.Encode(r.wire[r.stamp:r.stamp+16], raw[:])
	return r.wire
}

// order is what a shop's checkout posts.
type order struct {
	Reference  string  `json:"reference"`
	Customer   string  `json:"customer"`
	SKU        string  `json:"sku"`
	Quantity   int     `json:"quantity"`
	Currency   string  `json:"currency"`
	UnitPrice  int     `json:"unitPriceCents"`
	PlacedAt   string  `json:"placedAt"`
	Channel    string  `json:"channel"`
	Lines      []line  `json:"lines"`
	ShipTo     address `json:"shipTo"`
	Payment    payment `json:"payment"`
	TotalCents int     `json:"totalCents"`
	Note       string  `json:"note"`
}

type line struct {
	SKU       string `json:"sku"`
	Name      string `json:"name"`
	Quantity  int    `json:"quantity"`
	UnitPrice int    `json:"unitPriceCents"`
	TaxRate   int    `json:"taxPercent"`
}

type address struct {
	Name       string `json:"name"`
	Street     string `json:"street"`
	PostalCode string `json:"postalCode"`
	City       string `json:"city"`
	Country    string `json:"country"`
	Phone      string `json:"phone"`
}

type payment struct {
	Method string `json:"method"`
	Token  string `json:"token"`
}

func newOrder(rng *rand.Rand) []byte {
	pick := func(words string) string {
		list := strings.Fields(words)
		return list[rng.IntN(len(list))]
	}
	o := order{
		Reference: fmt.Sprintf("%08x-%s", rng.Uint32(), stampMark),
		Customer:  fmt.Sprintf("c-%08d", rng.IntN(5_000_000)),
		Quantity:  1 + rng.IntN(9),
		Currency:  pick("EUR EUR EUR USD GBP CHF SEK PLN"),
		PlacedAt:  fmt.Sprintf("2026-%02d-%02dT%02d:%02d:%02d.%03dZ", 1+rng.IntN(12), 1+rng.IntN(28), rng.IntN(24), rng.IntN(60), rng.IntN(60), rng.IntN(1000)),
		Channel:   pick("web ios android store partner"),
		ShipTo: address{
			Name:       pick(firstNames) + " " + pick(lastNames),
			Street:     fmt.Sprintf("%s %d", pick(streets), 1+rng.IntN(180)),
			PostalCode: fmt.Sprintf("%05d", rng.IntN(100_000)),
			City:       pick(cities), Country: pick("DE AT CH FR IT ES PL SE GB US"),
			Phone: fmt.Sprintf("+%d%09d", 30+rng.IntN(19), rng.IntN(1_000_000_000)),
		},
		Payment: payment{Method: pick("card card card invoice wallet"), Token: fmt.Sprintf("tok_%016x%08x", rng.Uint64(), rng.Uint32())},
	}
	for range 3 + rng.IntN(3) {
		l := line{
			SKU:  fmt.Sprintf("%s-%05d", pick("BK EL HM KT TY GD SP CL"), rng.IntN(40_000)),
			Name: pick(adjectives) + " " + pick(materials) + " " + pick(things), Quantity: 1 + rng.IntN(4),
			UnitPrice: 99 + rng.IntN(25_000), TaxRate: []int{7, 19, 20, 25}[rng.IntN(4)],
		}
		o.Lines = append(o.Lines, l)
		o.TotalCents += l.Quantity * l.UnitPrice
	}
	o.SKU, o.UnitPrice = o.Lines[0].SKU, o.Lines[0].UnitPrice
	var note []string
	for range 8 + rng.IntN(20) {
		note = append(note, pick(noteWords))
	}
	o.Note = strings.Join(note, " ")
	body, err := json.Marshal(o)
	if err != nil {
		panic(err) // plain structs always marshal
	}
	return body
}

const (
	firstNames = "Ada Grace Alan Edsger Barbara Leslie Donald Radia Ken Dennis Margaret Katherine Jim Tony Niklaus Frances John Anita Vint Sophie Tim Joan Hedy Linus Guido Yukihiro Bjarne Maria Jonas Lena Paul Emma Noah Mia Elias Sofia Luca Anna Marek Zofia Piotr Ingrid Sven Astrid Olu Chidi Amara Wei Li Haruto Yui Priya Arjun Fatima Omar"
	lastNames  = "Lovelace Hopper Turing Dijkstra Liskov Lamport Knuth Perlman Thompson Ritchie Hamilton Johnson Gray Hoare Wirth Allen Backus Borg Cerf Wilson Lee Clarke Lamarr Berg Rossum Novak Schmidt Weber Fischer Wagner Becker Hoffmann Kowalski Nowak Lindqvist Andersson Okafor Adeyemi Chen Wang Tanaka Sato Sharma Patel Haddad Rossi Bianchi Garcia Lopez Dubois Moreau"
	streets    = "Lindenstrasse Hauptstrasse Bahnhofstrasse Gartenweg Schulstrasse Bergweg Kirchgasse Elm-Street Oak-Avenue Station-Road High-Street Church-Lane Via-Roma Rue-Lafayette Calle-Mayor Dluga Storgatan Kungsgatan Ringstrasse Seestrasse Waldweg Marktplatz"
	cities     = "Berlin Hamburg Munich Cologne Frankfurt Stuttgart Leipzig Vienna Graz Linz Zurich Basel Bern Paris Lyon Milan Rome Turin Madrid Sevilla Warsaw Krakow Gdansk Stockholm Malmo London Leeds Bristol Boston Denver Austin Seattle"
	adjectives = "Classic Compact Large Small Foldable Portable Heavy Light Organic Vintage Modern Rugged Slim Silent Quick Wireless Adjustable Handmade Recycled Premium Basic Outdoor Indoor Striped"
	materials  = "Steel Oak Walnut Cotton Linen Wool Leather Glass Ceramic Bamboo Copper Granite Canvas Rubber Silicone Aluminium Cork Paper Marble Brass"
	things     = "Kettle Lamp Chair Table Backpack Notebook Bottle Mug Blanket Pillow Shelf Clock Mirror Basket Knife Pan Bowl Plate Vase Frame Hammer Drill Tent Jacket Gloves Scarf Boots Helmet Speaker Headphones Keyboard Charger Cable Stand Puzzle Kite Planter Candle Towel Curtain"
	noteWords  = "please leave the parcel with a neighbour if nobody is at home ring twice second floor left door back garden gate code call before delivery gift wrap without invoice happy birthday from all of us do not bend fragile handle with care thanks deliver after six in evening only on weekdays replacement for broken item order number see earlier mail urgent no plastic packaging"
)
