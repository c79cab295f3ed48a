# The first target lists the others.
.DEFAULT_GOAL := help
.PHONY: help test short lint fmt vet fuzz vuln news chaos bench micro profile up down ci

govulncheck := golang.org/x/vuln/cmd/govulncheck@v1.9.0

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

test: ## Run all tests, with the race detector and on real brokers; sets up what is missing
	@./scripts/test

short: ## Run the tests that need no broker
	go test -short -race ./...

lint: ## Run the linters (golangci-lint, at the version that .ci/run pins)
	@bash .ci/run lint

fmt: ## Format the code
	gofmt -l -w .

vet: ## Vet for Linux, macOS and Windows
	@bash .ci/run vet

fuzz: ## Fuzz each target for a while: make fuzz FUZZTIME=1m
	@FUZZTIME=$(or $(FUZZTIME),10s) bash .ci/run fuzz

vuln: ## Look up known weaknesses of what is linked; needs the network (see SECURITY.md)
	go run $(govulncheck) ./...
	cd chaos && go run $(govulncheck) ./...

news: ## Run the flagship example
	go run ./examples/news

chaos: ## Break processes, brokers and links, and count what is lost: make chaos ARGS="-only A1 -scale 0.05"
	@cd chaos && go run . $(ARGS)

bench: ## Measure this project and its peers in turns: make bench ARGS="-only inprocess -scale 0.1"
	@cd bench && go run . $(ARGS)

micro: ## Compare the micro-benchmarks with a base commit: make micro ARGS="-base HEAD~5 -bench Offsets"
	@./scripts/micro $(ARGS)

profile: ## Profile this project's side of the benchmarks: make profile ARGS="-only inprocess -scale 0.5"
	@cd bench && go run . -profile run/profiles $(ARGS) && echo "in bench/run/profiles, by workload and system; bench/README.md says how to read them"

up: ## Start Kafka and RabbitMQ in Docker, on loopback
	docker compose up --detach --wait

down: ## Stop them and forget their data
	docker compose down --volumes

ci: ## Run everything that CI runs
	@bash .ci/run
