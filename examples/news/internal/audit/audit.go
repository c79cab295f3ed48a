// Package audit finds out what was lost and what was done twice. It is a pure
// function over what others say: the ledgers of the source and of the platforms,
// the files on the disk, and the rows in the database. What the pipeline counted
// is not asked for.
package audit

import (
	"slices"

	"github.com/gobroadway/gobroadway/examples/news/internal/post"
)

// Effect is a publishing that a platform says has taken place.
type Effect struct {
	Platform string
	Post     string
}

// Evidence is what there is to go by.
type Evidence struct {
	// Posts are the ids of the posts that should have gone through, each once:
	// from the source's own ledger.
	Posts []string
	// Platforms are the names of all.
	Platforms []string
	// Effects are what the platforms' own ledgers say, a static site's being its
	// files.
	Effects []Effect
	// Rows are the whole report.
	Rows []post.Publication
	// Renderings are the ids of the posts that were found in each format.
	Renderings map[string][]string
	// Site is the platform that every rendering lies on.
	Site string
}

// Verdict is what follows from it.
type Verdict struct {
	// Lost is how many posts are missing somewhere: without a row for some
	// platform; with a row that says published where the platform knows of
	// nothing; or published on the site without some rendering.
	Lost int
	// LostPosts names them, in the order of Evidence.Posts.
	LostPosts []string
	// Duplicates counts publishings, and rows, beyond the first for a post and
	// platform.
	Duplicates int
	// Published is how many posts are on each platform, by its own account.
	Published map[string]int
	// Renderings is how many posts there are in each format.
	Renderings map[string]int
	// GivenUp counts rows that say so.
	GivenUp int
	// Retries counts attempts beyond the first, by the rows.
	Retries int
	// Rows counts rows of the posts in question.
	Rows int
	// Strangers counts effects for posts that are not in question.
	Strangers int
}

type place struct{ post, platform string }

// Judge compares all with all.
func Judge(e Evidence) Verdict {
	v := Verdict{Published: make(map[string]int), Renderings: make(map[string]int)}
	wanted := set(e.Posts)
	effects := v.effects(e, wanted)
	rows := v.rows(e, wanted)
	rendered := make(map[string]map[string]bool, len(e.Renderings))
	for format, ids := range e.Renderings {
		rendered[format] = set(ids)
		for _, id := range slices.Compact(slices.Sorted(slices.Values(ids))) {
			if wanted[id] {
				v.Renderings[format]++
			}
		}
	}
	for _, id := range e.Posts {
		if missing(id, e, rows, effects, rendered) {
			v.LostPosts = append(v.LostPosts, id)
		}
	}
	v.Lost = len(v.LostPosts)
	return v
}

func set(ids []string) map[string]bool {
	s := make(map[string]bool, len(ids))
	for _, id := range ids {
		s[id] = true
	}
	return s
}

func (v *Verdict) effects(e Evidence, wanted map[string]bool) map[place]int {
	for _, p := range e.Platforms {
		v.Published[p] = 0
	}
	count := make(map[place]int)
	for _, one := range e.Effects {
		if !wanted[one.Post] {
			v.Strangers++
			continue
		}
		at := place{one.Post, one.Platform}
		if count[at]++; count[at] > 1 {
			v.Duplicates++
		} else {
			v.Published[one.Platform]++
		}
	}
	return count
}

func (v *Verdict) rows(e Evidence, wanted map[string]bool) map[place]string {
	outcome := make(map[place]string)
	for _, r := range e.Rows {
		if !wanted[r.Post] {
			continue
		}
		v.Rows++
		v.Retries += max(r.Attempts-1, 0)
		if r.Outcome == post.GivenUp {
			v.GivenUp++
		}
		at := place{r.Post, r.Platform}
		if _, twice := outcome[at]; twice {
			v.Duplicates++
		}
		outcome[at] = r.Outcome
	}
	return outcome
}

// missing says whether a post is missing somewhere.
func missing(id string, e Evidence, rows map[place]string, effects map[place]int, rendered map[string]map[string]bool) bool {
	for _, platform := range e.Platforms {
		at := place{id, platform}
		switch rows[at] {
		case post.GivenUp: // not published, and it says so
		case post.Published:
			if effects[at] == 0 {
				return true
			}
		default:
			return true
		}
	}
	if rows[place{id, e.Site}] != post.Published {
		return false
	}
	for _, ids := range rendered {
		if !ids[id] {
			return true
		}
	}
	return false
}
