package jsonata

import (
	"math"
	"strings"
)

// mostMillis is the end of JavaScript's time.
const (
	mostMillis = 8.64e15
	dayMillis  = 86_400_000
)

// civil is a time in UTC, as floats because a time may be invalid: then all of them are NaN.
type civil struct {
	millis                         float64
	year, month, day               float64 // month from 0
	hour, minute, second, fraction float64
	weekday                        float64 // from 0, Sunday
}

func civilOf(millis float64) civil {
	millis = math.Trunc(millis)
	if !(math.Abs(millis) <= mostMillis) {
		n := math.NaN()
		return civil{n, n, n, n, n, n, n, n, n}
	}
	days := math.Floor(millis / dayMillis)
	rest := millis - days*dayMillis
	y, m, d := dateOfDays(int64(days))
	return civil{
		millis: millis, year: float64(y), month: float64(m - 1), day: float64(d),
		hour: math.Floor(rest / 3_600_000), minute: math.Mod(math.Floor(rest/60_000), 60),
		second: math.Mod(math.Floor(rest/1000), 60), fraction: math.Mod(rest, 1000),
		weekday: math.Mod(math.Mod(days+4, 7)+7, 7),
	}
}

// dateOfDays is the date so many days after 1970-01-01, in the Gregorian calendar: of years that begin in March, in eras of 400.
func dateOfDays(days int64) (year, month, day int64) {
	days += 719468
	era := floorDiv(days, 146097)
	of := days - era*146097
	yearOf := (of - of/1460 + of/36524 - of/146096) / 365
	dayOf := of - (365*yearOf + yearOf/4 - yearOf/100)
	m := (5*dayOf + 2) / 153
	day = dayOf - (153*m+2)/5 + 1
	month = m + 3
	if m >= 10 {
		month = m - 9
	}
	year = yearOf + era*400
	if month <= 2 {
		year++
	}
	return year, month, day
}

func daysOfDate(year, month, day int64) int64 {
	if month <= 2 {
		year--
	}
	era := floorDiv(year, 400)
	yearOf := year - era*400
	m := month - 3
	if month <= 2 {
		m = month + 9
	}
	dayOf := (153*m+2)/5 + day - 1
	return era*146097 + yearOf*365 + yearOf/4 - yearOf/100 + dayOf - 719468
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

// utc is JavaScript's Date.UTC: fields may be beyond their bounds, and years below 100 are of the 20th century.
func utc(year, month, day, hour, minute, second, fraction float64) float64 {
	for _, f := range []float64{year, month, day, hour, minute, second, fraction} {
		if math.IsNaN(f) || math.Abs(f) > 1e15 {
			return math.NaN()
		}
	}
	year, month = math.Trunc(year), math.Trunc(month)
	if year >= 0 && year <= 99 {
		year += 1900
	}
	year += math.Floor(month / 12)
	month = math.Mod(math.Mod(month, 12)+12, 12)
	if math.Abs(year) > 400_000 {
		return math.NaN()
	}
	days := float64(daysOfDate(int64(year), int64(month)+1, 1)) + math.Trunc(day) - 1
	millis := days*dayMillis + math.Trunc(hour)*3_600_000 + math.Trunc(minute)*60_000 + math.Trunc(second)*1000 + math.Trunc(fraction)
	if math.Abs(millis) > mostMillis {
		return math.NaN()
	}
	return millis + 0
}

func dateUTC(year, month, day float64) float64 { return utc(year, month, day, 0, 0, 0, 0) }

// firstWeek is when the first week of a month begins, or of a year for January: on the Monday of the week with its first Thursday.
func firstWeek(year, month float64) float64 {
	first := dateUTC(year, month, 1)
	weekday := civilOf(first).weekday
	if weekday == 0 {
		weekday = 7
	}
	if weekday > 4 {
		return first + (8-weekday)*dayMillis
	}
	return first - (weekday-1)*dayMillis
}

// weekOf is the week that a day is in, counted from the first week of this month or year; the one before and the next one
// begin at the given months.
func weekOf(today, year, month, beforeYear, beforeMonth, nextYear, nextMonth, most float64) float64 {
	week := (today-firstWeek(year, month))/(7*dayMillis) + 1
	switch {
	case week > most:
		if today >= firstWeek(nextYear, nextMonth) {
			week = 1
		}
	case week < 1:
		week = (today-firstWeek(beforeYear, beforeMonth))/(7*dayMillis) + 1
	}
	return math.Floor(week)
}

func monthBefore(year, month float64) (float64, float64) {
	if month == 0 {
		return year - 1, 11
	}
	return year, month - 1
}

func monthAfter(year, month float64) (float64, float64) {
	if month == 11 {
		return year + 1, 0
	}
	return year, month + 1
}

// component is a number of a time; ok is false if the letter means none.
func (t civil) component(letter byte) (value float64, ok bool) {
	switch letter {
	case 'Y':
		return t.year, true
	case 'M':
		return t.month + 1, true
	case 'D':
		return t.day, true
	case 'd':
		return (dateUTC(t.year, t.month, t.day)-dateUTC(t.year, 0, 1))/dayMillis + 1, true
	case 'F':
		if t.weekday == 0 {
			return 7, true
		}
		return t.weekday, true
	case 'W':
		return weekOf(dateUTC(t.year, t.month, t.day), t.year, 0, t.year-1, 0, t.year+1, 0, 52), true
	case 'w':
		by, bm := monthBefore(t.year, t.month)
		ny, nm := monthAfter(t.year, t.month)
		return weekOf(dateUTC(t.year, t.month, t.day), t.year, t.month, by, bm, ny, nm, 4), true
	case 'X':
		switch {
		case t.millis < firstWeek(t.year, 0):
			return t.year - 1, true
		case t.millis >= firstWeek(t.year+1, 0):
			return t.year + 1, true
		}
		return t.year, true
	case 'x':
		ny, nm := monthAfter(t.year, t.month)
		switch {
		case t.millis < firstWeek(t.year, t.month):
			_, m := monthBefore(t.year, t.month)
			return m + 1, true
		case t.millis >= firstWeek(ny, nm):
			return nm + 1, true
		}
		return t.month + 1, true
	case 'H':
		return t.hour, true
	case 'h':
		if h := math.Mod(t.hour, 12); h != 0 {
			return h, true
		}
		return 12, true
	case 'm':
		return t.minute, true
	case 's':
		return t.second, true
	case 'f':
		return t.fraction, true
	}
	return 0, false
}

func monthNames() []string {
	return strings.Fields("January February March April May June July August September October November December")
}

func dayNames() []string {
	return strings.Fields("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
}

// picturePart is a literal text or a component of a picture for times (XPath and XQuery Functions 3.1, 9.8.4).
type picturePart struct {
	literal   string
	component byte // 0 for a literal
	first     string
	second    byte // the second presentation modifier, 0 if there is none
	named     bool
	letters   letterCase
	format    *integerFormat
	year      int     // digits of a year, -1 for all
	widest    float64 // NaN if there is none
}

const isoPicture = "[Y0001]-[M01]-[D01]T[H01]:[m01]:[s01].[f001][Z01:01t]"

func parseTimePicture(picture string) ([]*picturePart, error) {
	var parts []*picturePart
	literal := func(text string) {
		if text != "" {
			parts = append(parts, &picturePart{literal: strings.ReplaceAll(text, "]]", "]")})
		}
	}
	from, at := 0, 0
	for at < len(picture) {
		if picture[at] != '[' {
			at++
			continue
		}
		literal(picture[from:at])
		if strings.HasPrefix(picture[at+1:], "[") {
			parts = append(parts, &picturePart{literal: "["})
			at += 2
			from = at
			continue
		}
		end := strings.IndexByte(picture[at:], ']')
		if end < 0 {
			return nil, fail("D3135")
		}
		var before *picturePart
		if len(parts) > 0 {
			before = parts[len(parts)-1]
		}
		p, err := parseMarker(strings.Join(strings.Fields(picture[at+1:at+end]), ""), before)
		if err != nil {
			return nil, err
		}
		parts = append(parts, p)
		at += end + 1
		from = at
	}
	literal(picture[from:])
	return parts, nil
}

func parseMarker(marker string, before *picturePart) (*picturePart, error) {
	if marker == "" {
		return nil, failValue("D3132", "")
	}
	p := &picturePart{component: marker[0], year: -1, widest: math.NaN()}
	modifier, narrowest := marker[1:], math.NaN()
	if comma := strings.LastIndexByte(marker, ','); comma >= 1 {
		modifier = marker[1:comma]
		least, most, _ := strings.Cut(marker[comma+1:], "-")
		narrowest, p.widest = scriptInt(least), scriptInt(most) // * is no number
	}
	switch {
	case len(modifier) > 1 && strings.IndexByte("atco", modifier[len(modifier)-1]) >= 0:
		p.second = modifier[len(modifier)-1]
		p.first = modifier[:len(modifier)-1]
	case modifier != "":
		p.first = modifier
	default:
		if p.first = defaultModifier(p.component); p.first == "" {
			return nil, failValue("D3132", string(rune(p.component)))
		}
	}
	var err error
	switch {
	case p.first[0] == 'n':
		p.named = true
	case p.first[0] == 'N':
		p.named, p.letters = true, upperCase
		if len(p.first) > 1 && p.first[1] == 'n' {
			p.letters = titleCase
		}
	case strings.IndexByte("YMDdFWwXxHhmsf", p.component) >= 0:
		err = p.parseFormat(narrowest, before)
	}
	if err == nil && (p.component == 'Z' || p.component == 'z') {
		p.format, err = parseIntegerPicture(p.first)
	}
	return p, err
}

func (p *picturePart) parseFormat(narrowest float64, before *picturePart) (err error) {
	picture := p.first
	if p.second != 0 {
		picture += ";" + string(rune(p.second))
	}
	if p.format, err = parseIntegerPicture(picture); err != nil {
		return err
	}
	digits := p.format.style == decimalStyle
	if digits && float64(p.format.mandatory) < narrowest {
		p.format.mandatory = int(min(narrowest, math.MaxInt32))
	}
	if p.component == 'Y' {
		if !math.IsNaN(p.widest) {
			p.year = int(min(p.widest, 400))
			p.format.mandatory = int(min(p.widest, math.MaxInt32))
		} else if w := p.format.mandatory + p.format.optional; digits && w >= 2 {
			p.year = w
		}
	}
	if before != nil && before.format != nil { // two numbers in a row: the first must have its width
		before.format.width = before.format.mandatory
	}
	return nil
}

func defaultModifier(component byte) string {
	switch component {
	case 'Y', 'M', 'D', 'd', 'W', 'w', 'X', 'x', 'H', 'h', 'f':
		return "1"
	case 'F', 'P', 'C', 'E':
		return "n"
	case 'm', 's':
		return "01"
	case 'Z', 'z':
		return "01:01"
	}
	return ""
}

func callNow(c *Call, args []any) (any, error) {
	return c.formatTime(float64(c.s.env.Now.UnixMilli()), argument(args, 0), argument(args, 1))
}

func callMillis(c *Call, _ []any) (any, error) { return float64(c.s.env.Now.UnixMilli()), nil }

func callFromMillis(c *Call, args []any) (any, error) {
	millis, err := numberArgument(args, 0)
	if err != nil {
		return nil, err
	}
	return c.formatTime(millis, argument(args, 1), argument(args, 2))
}

func (c *Call) formatTime(millis float64, by, zone any) (any, error) {
	hours, minutes := 0.0, 0.0
	if text, is := zone.(string); is {
		offset := scriptInt(text)
		hours, minutes = math.Floor(offset/100), math.Mod(offset, 100)
	}
	picture, is := by.(string)
	if !is {
		picture = isoPicture
	}
	parts, err := parseTimePicture(picture)
	if err != nil {
		return nil, err
	}
	t := civilOf(millis + (60*hours+minutes)*60_000)
	if math.IsNaN(t.millis) {
		return nil, failValue("D1001", millis)
	}
	var b strings.Builder
	for _, p := range parts {
		text := p.literal
		if p.component != 0 {
			if text, err = c.formatPart(t, p, hours, minutes); err != nil {
				return nil, err
			}
		}
		if err := c.s.spell(len(text)); err != nil {
			return nil, err
		}
		b.WriteString(text)
	}
	return b.String(), nil
}

func (c *Call) formatPart(t civil, p *picturePart, hours, minutes float64) (string, error) {
	value, numeric := t.component(p.component)
	switch {
	case p.component == 'Z' || p.component == 'z':
		return c.formatZone(p, hours, minutes)
	case p.component == 'P':
		text := "am"
		if t.hour >= 12 {
			text = "pm"
		}
		if p.named && p.letters == upperCase {
			text = strings.ToUpper(text)
		}
		return text, nil
	case p.component == 'C' || p.component == 'E':
		return "ISO", nil
	case !numeric:
		return "undefined", nil // as JavaScript writes it
	case p.named && p.component == 'f':
		return "", failValue("D3133", "f")
	case p.named:
		return p.name(value)
	}
	if p.component == 'Y' && p.year != -1 {
		value = math.Mod(value, math.Pow10(p.year))
	}
	return c.integer(value, p.format)
}

func (p *picturePart) name(value float64) (string, error) {
	var name string
	switch p.component {
	case 'M', 'x':
		name = monthNames()[int(value)-1]
	case 'F':
		name = dayNames()[int(value)-1]
	default:
		return "", failValue("D3133", string(rune(p.component)))
	}
	switch p.letters {
	case upperCase:
		name = strings.ToUpper(name)
	case lowerCase:
		name = strings.ToLower(name)
	}
	if float64(len(name)) > p.widest {
		name = name[:int(max(p.widest, 0))]
	}
	return name, nil
}

func (c *Call) formatZone(p *picturePart, hours, minutes float64) (text string, err error) {
	offset := hours*100 + minutes
	switch digits := p.format.mandatory; {
	case p.format.regular > 0, digits == 3, digits == 4:
		text, err = c.integer(offset, p.format)
	case digits == 1 || digits == 2:
		if text, err = c.integer(hours, p.format); err == nil && minutes != 0 {
			var two *integerFormat
			if two, err = parseIntegerPicture("00"); err == nil {
				var rest string
				rest, err = c.integer(math.Floor(minutes), two)
				text += ":" + rest
			}
		}
	default:
		return "", failValue("D3134", float64(digits))
	}
	if err != nil {
		return "", err
	}
	if offset >= 0 {
		text = "+" + text
	}
	if p.component == 'z' {
		text = "GMT" + text
	}
	if offset == 0 && p.second == 't' {
		text = "Z"
	}
	return text, nil
}
