package standin

// The entities of the Mastodon API as its documentation names their fields
// (https://docs.joinmastodon.org/entities/Status/). They are this package's own
// and not the client library's, so that the two cannot agree on a mistake.

type status struct {
	ID               string     `json:"id"`
	CreatedAt        string     `json:"created_at"`
	InReplyToID      *string    `json:"in_reply_to_id"`
	InReplyToAccount *string    `json:"in_reply_to_account_id"`
	Sensitive        bool       `json:"sensitive"`
	SpoilerText      string     `json:"spoiler_text"`
	Visibility       string     `json:"visibility"`
	Language         string     `json:"language"`
	URI              string     `json:"uri"`
	URL              string     `json:"url"`
	RepliesCount     int        `json:"replies_count"`
	ReblogsCount     int        `json:"reblogs_count"`
	FavouritesCount  int        `json:"favourites_count"`
	EditedAt         *string    `json:"edited_at"`
	Content          string     `json:"content"`
	Reblog           *status    `json:"reblog"`
	Account          account    `json:"account"`
	MediaAttachments []struct{} `json:"media_attachments"`
	Mentions         []struct{} `json:"mentions"`
	Tags             []tag      `json:"tags"`
	Emojis           []struct{} `json:"emojis"`
	Card             *struct{}  `json:"card"`
	Poll             *struct{}  `json:"poll"`
}

type account struct {
	ID          string `json:"id"`
	Username    string `json:"username"`
	Acct        string `json:"acct"`
	DisplayName string `json:"display_name"`
	URL         string `json:"url"`
}

type tag struct {
	Name string `json:"name"`
	URL  string `json:"url"`
}

// apiError is how Mastodon says no.
type apiError struct {
	Error string `json:"error"`
}
