# Everything from a fresh clone by one command. Needs Debian (or Ubuntu), Rust by rustup, and root for the
# targets that make network namespaces; missing packages are installed by tests/setup.

export PATH := $(HOME)/.cargo/bin:$(PATH)
TARGET := $(or $(CARGO_TARGET_DIR),target)
CARGO := cargo

.PHONY: demo test soak bench lint clean

# Two clusters, traffic between them, sniffers on every link; options for `lab demo` go into DEMO,
# for example: make demo DEMO="--keep --json demo.json"
demo:
	@tests/setup
	$(CARGO) build --release --locked --workspace --bins
	@$(TARGET)/release/lab demo $(DEMO)

# All tests; the last line says how many passed.
test:
	@tests/setup
	@tests/run

# The same in full: rounds by the thousand, hours of traffic. A part of it: make soak SOAK="restart"
soak:
	@tests/setup
	@HAWSER_SOAK=1 tests/run $(SOAK)

# Speed, cost and memory of the tunnel beside other people's; which bench and its options go into BENCH,
# for example: make bench BENCH="datapath --quick"
# The tunnel without a cipher, which shows what the cipher costs, is a build of its own that nothing else uses.
bench:
	@tests/setup
	@tests/peers bench
	$(CARGO) build --release --locked --workspace --bins
	RUSTFLAGS="--cfg hawser_null_cipher" $(CARGO) build --release --locked -p hawser-tunnel --target-dir $(TARGET)/null-cipher
	@$(TARGET)/release/bench $(or $(BENCH),datapath)

# Format, clippy, documentation, dependencies; changes nothing.
lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --release --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --release --locked --workspace --no-deps --document-private-items
	@tests/deny

# Build results, and labs that were left up.
clean:
	@if [ -x $(TARGET)/release/lab ]; then $(TARGET)/release/lab down --all; fi
	$(CARGO) clean
