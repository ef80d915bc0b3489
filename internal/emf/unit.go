package emf

// maxUnitBytes is OpenTelemetry's bound of an instrument's unit.
const maxUnitBytes = 63

// ucum is the unit that OpenTelemetry wants (UCUM) for one of CloudWatch's (AWS: MetricDatum). A unit that CloudWatch
// doesn't have is kept as an annotation, {…}, so that two of them stay two.
func ucum(unit []byte) string {
	switch string(unit) {
	case "", "None":
		return ""
	case "Seconds":
		return "s"
	case "Milliseconds":
		return "ms"
	case "Microseconds":
		return "us"
	case "Bytes":
		return "By"
	case "Kilobytes":
		return "kBy"
	case "Megabytes":
		return "MBy"
	case "Gigabytes":
		return "GBy"
	case "Terabytes":
		return "TBy"
	case "Bits":
		return "bit"
	case "Kilobits":
		return "kbit"
	case "Megabits":
		return "Mbit"
	case "Gigabits":
		return "Gbit"
	case "Terabits":
		return "Tbit"
	case "Percent":
		return "%"
	case "Count":
		return "{count}"
	}
	const perSecond = "/Second"
	if n := len(unit) - len(perSecond); n > 0 && string(unit[n:]) == perSecond {
		if of := ucum(unit[:n]); of != "" && len(of)+2 <= maxUnitBytes {
			return of + "/s"
		}
		return ""
	}
	if len(unit) > maxUnitBytes-2 {
		unit = unit[:maxUnitBytes-2]
	}
	annotation := make([]byte, 0, len(unit)+2)
	annotation = append(annotation, '{')
	for _, c := range unit {
		if c <= ' ' || c >= 0x7f || c == '{' || c == '}' {
			c = '_'
		}
		annotation = append(annotation, c)
	}
	return string(append(annotation, '}'))
}
