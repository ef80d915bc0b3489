package v1alpha1

import (
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// maxCORSAge is the longest that browsers heed.
const maxCORSAge = 24 * time.Hour

func (c *CORS) validate(p *field.Path) field.ErrorList {
	if c == nil {
		return nil
	}
	var errs field.ErrorList
	if len(c.Origins) == 0 {
		errs = append(errs, field.Required(p.Child("origins"), "name the pages' origins, such as https://shop.example, or *"))
	}
	for i, origin := range c.Origins {
		if !validOrigin(origin) {
			errs = append(errs, field.Invalid(p.Child("origins").Index(i), origin, "must be a scheme, a host and maybe a port, such as https://shop.example or https://*.shop.example:8443, or *"))
		}
	}
	if c.Credentials && slices.Contains(c.Origins, "*") {
		errs = append(errs, field.Forbidden(p.Child("credentials"), "with credentials the origins must be named: remove *, or credentials"))
	}
	for i, m := range c.Methods {
		if !slices.Contains(methods(), m) {
			errs = append(errs, field.NotSupported(p.Child("methods").Index(i), m, methods()))
		}
	}
	for _, list := range []struct {
		name   string
		values []string
	}{{"headers", c.Headers}, {"exposeHeaders", c.ExposeHeaders}} {
		for i, name := range list.values {
			if !httpguts.ValidHeaderFieldName(name) || name == "*" {
				errs = append(errs, field.Invalid(p.Child(list.name).Index(i), name, "must be the name of a header, such as Authorization"))
			}
		}
	}
	return append(errs, validateDuration(c.MaxAge, 0, maxCORSAge, p.Child("maxAge"))...)
}

func validOrigin(text string) bool {
	if text == "*" {
		return true
	}
	if strings.Count(text, "*") > 1 || strings.Contains(text, "*") && !strings.Contains(text, "://*.") {
		return false
	}
	u, err := url.Parse(strings.Replace(text, "*", "a", 1))
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && u.User == nil &&
		u.Path == "" && u.RawQuery == "" && u.Fragment == "" && text == strings.ToLower(text)
}
