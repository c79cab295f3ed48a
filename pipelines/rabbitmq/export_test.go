package rabbitmq

// What a section becomes.
var (
	SourceConfig    = sourceConfig
	PublisherConfig = publisherConfig
)
