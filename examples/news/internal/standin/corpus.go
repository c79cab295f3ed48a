package standin

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"html"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"
)

// Hashtags are the tags that every post of the corpus has at least one of.
func Hashtags() []string { return []string{"computerscience", "architecture", "programming"} }

// CorpusSize is how many distinct posts the posts API has.
const CorpusSize = 6400

// phrasesJSON is what posts are made of. Made for this project.
//
//go:embed corpus.json
var phrasesJSON string

type phrases struct {
	Languages []language `json:"languages"`
	Emoji     []string   `json:"emoji"`
	Combining []string   `json:"combining"`
	Links     []string   `json:"links"`
	Hostile   []string   `json:"hostile"`
}

type language struct {
	Code     string   `json:"code"`
	Weight   int      `json:"weight"`
	Note     string   `json:"note"`
	Authors  []string `json:"authors"`
	Openings []string `json:"openings"`
	Claims   []string `json:"claims"`
	Closings []string `json:"closings"`
}

// corpus is every post, oldest first, and where each hashtag has its own.
type corpus struct {
	posts []status
	byTag map[string][]int // indices into posts, ascending
	byURL map[string]string
}

// newCorpus generates n posts. Equal seeds give equal corpora.
func newCorpus(seed uint64, n int) (*corpus, error) {
	var ph phrases
	if err := json.Unmarshal([]byte(phrasesJSON), &ph); err != nil {
		return nil, fmt.Errorf("standin: phrases: %w", err)
	}
	w := &writer{rng: rand.New(rand.NewPCG(seed, 0x6e657773)), phrases: ph}
	c := &corpus{byTag: make(map[string][]int), byURL: make(map[string]string, n)}
	now := time.Date(2026, 1, 5, 8, 0, 0, 0, time.UTC)
	for i := range n {
		now = now.Add(time.Duration(30_000+w.rng.IntN(270_000)) * time.Millisecond)
		s := w.post(i, now)
		c.posts = append(c.posts, s)
		c.byURL[s.URL] = s.ID
		for _, t := range s.Tags {
			c.byTag[t.Name] = append(c.byTag[t.Name], i)
		}
	}
	return c, nil
}

// writer makes up one post after another.
type writer struct {
	rng     *rand.Rand
	phrases phrases
}

func (w *writer) oneOf(list []string) string { return list[w.rng.IntN(len(list))] }

// chance is true in percent of 100 cases.
func (w *writer) chance(percent int) bool { return w.rng.IntN(100) < percent }

func (w *writer) language() language {
	total := 0
	for _, l := range w.phrases.Languages {
		total += l.Weight
	}
	at := w.rng.IntN(total)
	for _, l := range w.phrases.Languages {
		if at -= l.Weight; at < 0 {
			return l
		}
	}
	return w.phrases.Languages[0]
}

// post is the i-th post, written at the given time.
func (w *writer) post(i int, at time.Time) status {
	lang := w.language()
	author := w.oneOf(lang.Authors)
	user := "reader" + strconv.Itoa(w.rng.IntN(900)+100)
	// A Mastodon id is the time in milliseconds with 16 bits of sequence.
	id := strconv.FormatInt(at.UnixMilli()<<16|int64(w.rng.IntN(1<<16)), 10)
	tags := w.tags()
	s := status{
		ID: id, CreatedAt: at.Format("2006-01-02T15:04:05.000Z"), Visibility: "public", Language: lang.Code,
		URL: "https://social.example/@" + user + "/" + id,
		URI: "https://social.example/users/" + user + "/statuses/" + id,
		Account: account{
			ID: strconv.Itoa(1000 + len(author)), Username: user, Acct: user + "@social.example",
			DisplayName: author, URL: "https://social.example/@" + user,
		},
		MediaAttachments: []struct{}{}, Mentions: []struct{}{}, Emojis: []struct{}{},
		FavouritesCount: w.rng.IntN(500), ReblogsCount: w.rng.IntN(100), RepliesCount: w.rng.IntN(20),
	}
	for _, t := range tags {
		s.Tags = append(s.Tags, tag{Name: t, URL: "https://social.example/tags/" + t})
	}
	if w.chance(4) {
		s.Sensitive, s.SpoilerText = true, "long & <i>opinionated</i>"
	}
	s.Content = w.content(i, lang, tags)
	return s
}

// tags gives one followed hashtag, sometimes two or three, and sometimes
// others that nobody here follows.
func (w *writer) tags() []string {
	tags := Hashtags()
	w.rng.Shuffle(len(tags), func(i, j int) { tags[i], tags[j] = tags[j], tags[i] })
	switch at := w.rng.IntN(100); {
	case at < 3:
	case at < 18:
		tags = tags[:2]
	default:
		tags = tags[:1]
	}
	if w.chance(30) {
		tags = append(tags, w.oneOf([]string{"golang", "queues", "kolejki", "プログラミング", "αρχιτεκτονική", "100daysofcode"}))
	}
	return tags
}

// content is HTML as Mastodon serves it, or as an attacker would.
func (w *writer) content(i int, lang language, tags []string) string {
	body := w.body(lang, i)
	if w.chance(6) {
		bad := w.oneOf(w.phrases.Hostile)
		if strings.Contains(bad, "%d") {
			bad = fmt.Sprintf(bad, i)
		}
		if w.chance(30) {
			body = bad + body
		} else {
			body += bad
		}
	}
	var b strings.Builder
	b.WriteString(body + "<p>")
	for j, t := range tags {
		if j > 0 {
			b.WriteString(" ")
		}
		fmt.Fprintf(&b, `<a href="https://social.example/tags/%s" class="mention hashtag" rel="tag">#<span>%s</span></a>`, t, t)
	}
	b.WriteString("</p>")
	return b.String()
}

// body is one to many paragraphs. The numbered note makes every post distinct.
func (w *writer) body(lang language, i int) string {
	paragraphs := 1 + w.rng.IntN(3)
	if w.chance(2) {
		paragraphs = 25
	}
	var b strings.Builder
	for p := range paragraphs {
		b.WriteString("<p>")
		if p == 0 {
			b.WriteString(html.EscapeString(fmt.Sprintf(lang.Note, i+1)) + " ")
		}
		b.WriteString(w.oneOf(lang.Openings) + " " + w.oneOf(lang.Claims))
		if w.chance(40) {
			b.WriteString("<br>" + w.oneOf(lang.Claims))
		}
		b.WriteString(w.decoration(i) + " " + w.oneOf(lang.Closings) + "</p>")
	}
	if w.chance(8) {
		b.WriteString("<blockquote><p>" + w.oneOf(lang.Claims) + "</p></blockquote>")
	}
	if w.chance(6) {
		b.WriteString("<pre><code>for msg := range queue {\n\tif err := handle(msg); err != nil &amp;&amp; n &lt; 3 {\n\t\tretry(msg)\n\t}\n}</code></pre>")
	}
	if w.chance(5) {
		b.WriteString("<ul><li>" + w.oneOf(lang.Claims) + "</li><li>" + w.oneOf(lang.Claims) + "</li></ul>")
	}
	return b.String()
}

// decoration is emoji, combining characters or a link, or nothing.
func (w *writer) decoration(i int) string {
	var s string
	if w.chance(30) {
		s += " " + w.oneOf(w.phrases.Emoji)
	}
	if w.chance(8) {
		s += " " + w.oneOf(w.phrases.Combining)
	}
	if w.chance(25) {
		link := w.oneOf(w.phrases.Links)
		link = fmt.Sprintf(link, i)
		scheme, rest, _ := strings.Cut(link, "://")
		s += fmt.Sprintf(` <a href="%s" target="_blank" rel="nofollow noopener" translate="no">`+
			`<span class="invisible">%s://</span><span>%s</span></a>`,
			html.EscapeString(link), scheme, html.EscapeString(rest))
	}
	return s
}
