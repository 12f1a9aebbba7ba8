"""Every bound of the system, the unit last in the name. What may be configured has its default here."""

from __future__ import annotations

from typing import Final

# What a client may send.
body_bytes_max: Final = 16 * 1024 * 1024
header_bytes_max: Final = 32 * 1024
header_count_max: Final = 100
request_head_s: Final = 10.0
request_body_s: Final = 30.0
discard_s: Final = 2.0
keep_alive_s: Final = 75.0
connections_max: Final = 12_000
model_name_chars_max: Final = 256
subject_chars_max: Final = 256
choices_max: Final = 128
prompts_max: Final = 2_048
json_values_max: Final = 500_000
parse_here_bytes_max: Final = 64 * 1024
bodies_bytes_max: Final = 512 * 1024 * 1024

# What an exchange may take.
exchanges_max: Final = 4_096
exchange_s: Final = 900.0
engine_connect_s: Final = 5.0
engine_first_byte_s: Final = 300.0
engine_between_bytes_s: Final = 120.0
answer_bytes_max: Final = 32 * 1024 * 1024
model_list_bytes_max: Final = 1024 * 1024
tokens_per_exchange_max: Final = 1_000_000_000
event_bytes_max: Final = 1024 * 1024
client_stall_s: Final = 60.0
cancel_s: Final = 1.0
drain_s: Final = 30.0
drain_dead_s: Final = 5.0

# Workers of one site.
workers_max: Final = 64
worker_answer_s: Final = 10.0
worker_start_s: Final = 60.0
worker_told_s: Final = 0.25
worker_check_s: Final = 5.0
worker_end_s: Final = 10.0
worker_restart_first_s: Final = 0.5
worker_restart_most_s: Final = 30.0
talk_bytes_max: Final = 64 * 1024 * 1024

# The ledger.
entry_bytes_max: Final = 65_535
commit_records_max: Final = 256
piece_sync_s: Final = 0.25
sync_here_s: Final = 0.005
integrate_s: Final = 1.0
log_key_covered_s: Final = 30.0
segment_bytes: Final = 64 * 1024 * 1024
reserve_bytes_per_exchange: Final = 8 * 1024
seed_leaves_bits: Final = 20
subject_cache_max: Final = 10_000
recent_exchanges_max: Final = 10_000
clock_margin_s: Final = 5.0
checkpoint_behind_s: Final = 60.0
heartbeat_late_s: Final = 90.0
review_note_chars_max: Final = 16_384
review_days_max: Final = 3_660
faults_told_max: Final = 1_000
retire_s: Final = 300.0
retire_retry_s: Final = 30.0
note_bytes_max: Final = 256 * 1024
note_signatures_max: Final = 64
proof_bytes_max: Final = 512 * 1024
proof_hashes_max: Final = 64
policy_bytes_max: Final = 512 * 1024
policy_logs_max: Final = 64
policy_witnesses_max: Final = 64
policy_groups_max: Final = 64
cosignature_leeway_s: Final = 60.0

# Witnesses.
witness_body_bytes_max: Final = 64 * 1024
witness_bodies_bytes_max: Final = 16 * 1024 * 1024
witness_requests_max: Final = 256
witness_threads: Final = 2
witness_answer_bytes_max: Final = 64 * 1024
witness_every_s: Final = 10.0
witness_ask_s: Final = 10.0
witness_drain_s: Final = 5.0

# Time stamps.
timestamp_every_s: Final = 3_600.0
timestamp_retry_s: Final = 60.0
timestamp_ask_s: Final = 10.0
timestamp_bytes_max: Final = 64 * 1024
timestamp_clock_s: Final = 60.0
timestamp_ca_bytes_max: Final = 1024 * 1024

# Copies.
replica_part_bytes: Final = 4 * 1024 * 1024
copy_part_bytes: Final = 256 * 1024
cover_s: Final = 20.0
replica_follow_s: Final = 5.0
replica_noted_s: Final = 3_600.0
replica_answer_s: Final = 30.0
inventory_bytes_max: Final = 64 * 1024 * 1024

# Search.
index_block_bytes: Final = 4096
index_word_chars_max: Final = 64
index_words_max: Final = 100_000
index_text_chars_max: Final = 32 * 1024 * 1024
index_text_depth_max: Final = 64
index_memory_bytes: Final = 192 * 1024 * 1024
index_run_bytes_max: Final = 64 * 1024 * 1024
index_batch_entries: Final = 8_192
index_lock_s: Final = 60.0
index_lock_poll_s: Final = 0.05
index_snapshots_max: Final = 8
query_chars_max: Final = 1_024
query_terms_max: Final = 32
results_max: Final = 10_000
phrase_candidates_max: Final = 2_000
index_s: Final = 2.0
index_restart_first_s: Final = 0.5
index_restart_most_s: Final = 30.0
snippet_chars: Final = 160

# Reads of the ledger.
reads_waiting_max: Final = 32
behind_looked_max: Final = 4_096
read_results: Final = 50
read_results_max: Final = 200
read_body_bytes_max: Final = 8 * 1024
reason_chars_max: Final = 1_024

# Engines.
engine_ask_s: Final = 1.0
engine_list_s: Final = 5.0
engine_start_s: Final = 600.0
engine_restart_first_s: Final = 0.5
engine_restart_most_s: Final = 30.0

# Routing.
engine_silent_s: Final = 6.0
retries_max: Final = 2
breaker_failures: Final = 5
breaker_window: Final = 20
breaker_rate: Final = 0.5
breaker_open_first_s: Final = 5.0
breaker_open_most_s: Final = 60.0
queue_max: Final = 1_024
queue_s: Final = 30.0
prefix_block_bytes: Final = 128
prefix_blocks_max: Final = 256
prefix_body_bytes_max: Final = 4 * 1024 * 1024
prefix_nodes_max: Final = 131_072
prefix_match_min: Final = 0.3
prefix_balance_exchanges: Final = 8.0
prefix_balance_ratio: Final = 1.5
prefix_bits_max: Final = 1_024
session_chars_max: Final = 256
fallbacks_max: Final = 8
engine_weight_max: Final = 1_000.0

# Keys.
key_name_chars_max: Final = 128

# The keystore.
keystore_page_rows: Final = 1_000
keystore_lock_s: Final = 30.0
keystore_busy_s: Final = 30.0
keystore_connect_s: Final = 5
keystore_call_s: Final = 10
keystore_rewrite_s: Final = 600
root_bytes_max: Final = 4_096
passphrase_chars_min: Final = 12
passphrase_bytes_max: Final = 1_024
scrypt_cost_max: Final = 1 << 20
holds_max: Final = 256
hold_text_chars_max: Final = 1_024
hold_exchanges_max: Final = 10_000
erasure_batch_exchanges: Final = 500
erasure_answer_s: Final = 3_600.0
subjects_named_max: Final = 62  # 64 in an entry, with the key's owner and whom the client names

# Retention.
retention_classes_max: Final = 64
retention_days_max: Final = 36_525
retention_basis_chars_max: Final = 512
