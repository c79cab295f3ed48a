package scenario

import "testing"

func TestLiveMarkupIsFound(t *testing.T) {
	for _, page := range []string{
		"<script>alert(1)</script>", "<SCRIPT SRC=//x.example/a.js>", "<p onclick=alert(1)>", "<p oNclick = 'x'>", `<a href="javascript:alert(1)">x</a>`,
		`<a href=" java&#x0A;script:alert(1)">x</a>`, `<a href="&#106;avascript:alert(1)">`, `<a href='data:text/html,x'>`, `<a href="//evil.example/">`,
		"<img src=x>", "<svg/onload=alert(1)>", "<iframe srcdoc='x'>", "<p style='background:url(x)'>", `<meta http-equiv="refresh" content="0;url=x">`,
		"<<script>alert(1)//<</script>", "<p <script>", "<!--<script>-->", "<math><mi xlink:href=x>", "<style>@import 'x'", `<a href="vbscript:x">`, "<p\x00onclick=x>",
		"<base href=x>", "<form action=x>", "<?xml x?>", "<![CDATA[x]]>", "< script>",
	} {
		if len(live(page)) == 0 {
			t.Errorf("nothing live in %q", page)
		}
	}
	for _, page := range []string{
		"", "text", "<!doctype html>\n<html lang=\"en\"><head><title>a &lt;script&gt; b</title><style>a > b { x: y }</style></head><body><p>x</p></body></html>",
		`<a href="https://x.example/?a=1&amp;b=onclick" rel="nofollow noopener">x</a><br/>`, `<a href="../index.html#a:b">`, `<p class="on">onclick=alert(1)</p>`,
		`<a href="mailto:a@x.example">`,
	} {
		if found := live(page); len(found) > 0 {
			t.Errorf("%q: %q", page, found)
		}
	}
}
