-- Receipts of one app are recorded, each once within the window.
-- KEYS  stream, counts, repeats of this window, repeats of the window before
-- ARGV  entries to keep, most repeats to know, seconds to know them, then for each receipt: digest, count's field, and
--       the eleven values of the stream's fields, in the order of FIELDS
-- Returns how many are new. A window that is full knows no more: from then on a repeat may be recorded twice.
local FIELDS = {'v', 'event', 'code', 'vendor', 'credential', 'mid', 'mid_sha256', 'user', 'device', 'token', 'at_ms'}
local WIDTH = 2 + #FIELDS
local new, known = 0, redis.call('SCARD', KEYS[3])
for at = 4, #ARGV, WIDTH do
  if redis.call('SISMEMBER', KEYS[3], ARGV[at]) == 0 and redis.call('SISMEMBER', KEYS[4], ARGV[at]) == 0 then
    local entry = {}
    for number, name in ipairs(FIELDS) do
      entry[#entry + 1], entry[#entry + 2] = name, ARGV[at + 1 + number]
    end
    redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', unpack(entry))
    redis.call('HINCRBY', KEYS[2], ARGV[at + 1], 1)
    if known < tonumber(ARGV[2]) then known = known + redis.call('SADD', KEYS[3], ARGV[at]) end
    new = new + 1
  end
end
redis.call('EXPIRE', KEYS[3], ARGV[3])
return new
