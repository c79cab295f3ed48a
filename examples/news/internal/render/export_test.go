package render

// What tests look at without a whole article.

// Clean sanitises as Render does.
func Clean(hostile string) (string, error) { return newCleaner().fragment(hostile) }

// Plain is the text of sanitised HTML.
func Plain(body string) (string, error) {
	blocks, err := parse(body)
	return plain(blocks), err
}

// VisualOrder is a line as it stands from left to right.
func VisualOrder(logical string) string {
	shaped, _ := shape([]rune(logical))
	var out []rune
	rtl := rightToLeft(shaped)
	for _, p := range visual(shaped, levels(shaped, rtl), rtl) {
		r := shaped[p.at]
		if p.back {
			r = mirrored(r)
		}
		out = append(out, r)
	}
	return string(out)
}

// Shape joins Arabic letters.
func Shape(s string) string {
	shaped, _ := shape([]rune(s))
	return string(shaped)
}

// Drawable rewrites s for DejaVu Sans.
func Drawable(s string) (string, int) {
	p, err := newPaper()
	if err != nil {
		panic(err)
	}
	return drawable(s, p.sans)
}
