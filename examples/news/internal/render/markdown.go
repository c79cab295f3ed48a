package render

import (
	"html"

	"github.com/JohannesKaufmann/html-to-markdown/v2/converter"
	"github.com/JohannesKaufmann/html-to-markdown/v2/plugin/base"
	"github.com/JohannesKaufmann/html-to-markdown/v2/plugin/commonmark"
	"github.com/JohannesKaufmann/html-to-markdown/v2/plugin/strikethrough"
)

// marker converts sanitised HTML to CommonMark.
type marker struct{ conv *converter.Converter }

func newMarker() *marker {
	return &marker{converter.NewConverter(converter.WithPlugins(
		base.NewBasePlugin(), commonmark.NewCommonmarkPlugin(), strikethrough.NewStrikethroughPlugin(),
	))}
}

// down is the article in Markdown. Everything goes through the converter, the
// footer too: it knows what to escape.
func (m *marker) down(a *Article) ([]byte, error) {
	doc := a.Post.HTML
	if a.Post.Warning != "" {
		doc = "<p><strong>" + html.EscapeString(a.Post.Warning) + "</strong></p>" + doc
	}
	doc += "<p>— " + html.EscapeString(byline(a))
	if a.Post.URL != "" {
		doc += `<br><a href="` + html.EscapeString(a.Post.URL) + `">` + html.EscapeString(a.Post.URL) + "</a>"
	}
	doc += "</p>"
	md, err := m.conv.ConvertString(doc)
	if err != nil {
		return nil, err
	}
	return []byte(md + "\n"), nil
}
