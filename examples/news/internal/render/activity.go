package render

import (
	"bytes"
	"encoding/json"
	"time"
)

// The vocabulary is ActivityStreams 2.0 (https://www.w3.org/TR/activitystreams-vocabulary/).
type activityNote struct {
	Context   string         `json:"@context"`
	Type      string         `json:"type"`
	ID        string         `json:"id,omitempty"`
	Name      string         `json:"name"`
	Summary   string         `json:"summary,omitempty"`
	Author    activityActor  `json:"attributedTo"`
	Published string         `json:"published"`
	Content   string         `json:"content"`
	Language  string         `json:"contentLanguage,omitempty"`
	Tags      []activityTag  `json:"tag"`
	URLs      []activityLink `json:"url"`
}

type activityActor struct {
	Type              string `json:"type"`
	Name              string `json:"name"`
	PreferredUsername string `json:"preferredUsername"`
}

type activityTag struct {
	Type string `json:"type"`
	Name string `json:"name"`
}

type activityLink struct {
	Type      string `json:"type"`
	MediaType string `json:"mediaType"`
	Href      string `json:"href"`
}

// note is the article as an ActivityStreams Note, with its siblings as links.
func note(a *Article) ([]byte, error) {
	n := activityNote{
		Context: "https://www.w3.org/ns/activitystreams", Type: "Note",
		ID: a.Post.URL, Name: a.Title, Summary: a.Post.Warning,
		Author:    activityActor{"Person", a.Post.Author, a.Post.Account},
		Published: a.Post.CreatedAt.UTC().Format(time.RFC3339),
		Content:   a.Post.HTML, Language: a.Post.Language, Tags: []activityTag{},
	}
	for _, t := range a.Post.Tags {
		n.Tags = append(n.Tags, activityTag{"Hashtag", "#" + t})
	}
	for _, link := range []struct{ format, media string }{
		{HTML, "text/html"}, {Markdown, "text/markdown"}, {PDF, "application/pdf"}, {Text, "text/plain"},
	} {
		n.URLs = append(n.URLs, activityLink{"Link", link.media, a.Post.ID + Extension(link.format)})
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetIndent("", "  ")
	if err := e.Encode(n); err != nil { // escapes <, > and &: safe within a page too
		return nil, err
	}
	return b.Bytes(), nil
}
