-- An operator pauses the account: nothing of it is claimed any more. A pause that it has already is replaced.
-- KEYS  gate   ARGV  for how long (ms, 0: until it is resumed), reason, 1 when its work may go another way meanwhile
local UNTIL_RESUMED = 253402300799999
pass_when_full(KEYS[1])
local now = now_ms()
local span = tonumber(ARGV[1])
redis.call(
  'HSET', KEYS[1], 'operator_since', now, 'operator_until', span > 0 and now + span or UNTIL_RESUMED,
  'operator_reason', ARGV[2], 'operator_elsewhere', ARGV[3]
)
