package scenario

import (
	"fmt"
	"html"
	"regexp"
	"slices"
	"strings"
)

// The look of this package at HTML shares nothing with whoever made it: it knows tags that are well formed, and calls all else suspect.
var (
	tagForm       = regexp.MustCompile(`^<(/?)([a-zA-Z][a-zA-Z0-9]*)((?:\s+[^\s=<>"'/]+(?:\s*=\s*(?:"[^"]*"|'[^']*'|[^\s"'=<>` + "`" + `]+))?)*)\s*/?>`)
	attributeForm = regexp.MustCompile(`([^\s=<>"'/]+)(?:\s*=\s*("[^"]*"|'[^']*'|[^\s"'=<>` + "`" + `]+))?`)
	plainForm     = regexp.MustCompile(`^(?i:<!doctype html>)`)
)

// liveTags run, load or send something.
var liveTags = []string{
	"script", "iframe", "frame", "frameset", "object", "embed", "applet", "svg", "math", "form", "input", "button", "textarea", "select", "base", "template",
	"noscript", "audio", "video", "source", "track", "img", "image", "picture", "link", "portal", "marquee", "isindex", "xml", "xss", "animate", "set", "foreignobject",
}

// live names what a browser would run or load of a page.
func live(page string) (found []string) {
	for at := strings.IndexByte(page, '<'); at >= 0; {
		rest := page[at:]
		switch tag := tagForm.FindStringSubmatch(rest); {
		case tag != nil:
			found = append(found, liveTag(strings.ToLower(tag[2]), tag[3])...)
			if tag[1] == "" && strings.EqualFold(tag[2], "style") { // its text is no markup
				_, after, ended := strings.Cut(rest, "</style>")
				if !ended {
					return append(found, "an open style")
				}
				rest = "</style>" + after
				at = len(page) - len(rest)
			}
		case plainForm.MatchString(rest):
		default:
			found = append(found, fmt.Sprintf("no tag: %.60q", rest))
		}
		next := strings.IndexByte(page[at+1:], '<')
		if next < 0 {
			break
		}
		at += 1 + next
	}
	return found
}

func liveTag(name, attributes string) (found []string) {
	if slices.Contains(liveTags, name) {
		found = append(found, name)
	}
	for _, attribute := range attributeForm.FindAllStringSubmatch(attributes, -1) {
		key, value := strings.ToLower(attribute[1]), html.UnescapeString(strings.Trim(attribute[2], `"'`))
		switch {
		case strings.HasPrefix(key, "on"), key == "srcdoc", key == "style", key == "action", key == "formaction", key == "background", strings.HasPrefix(key, "xlink"):
			found = append(found, name+" "+key)
		case key == "http-equiv" && strings.EqualFold(value, "refresh"):
			found = append(found, name+" refresh")
		case (key == "href" || key == "src") && liveURL(value):
			found = append(found, fmt.Sprintf("%s %s=%.60q", name, key, value))
		}
	}
	return found
}

// liveURL says whether an address has a scheme other than those of the web. Browsers pass over control characters and blanks in it.
func liveURL(address string) bool {
	clean := strings.ToLower(strings.Map(func(r rune) rune {
		if r <= ' ' || r == 0x7f {
			return -1
		}
		return r
	}, address))
	scheme, _, has := strings.Cut(clean, ":")
	if !has || strings.ContainsAny(scheme, "/?#") {
		return strings.HasPrefix(clean, "//")
	}
	return scheme != "http" && scheme != "https" && scheme != "mailto"
}
