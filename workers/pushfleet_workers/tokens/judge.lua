-- Weighs deaths that the vendor does not date against the pushes it accepted, in a sliding window.
-- KEYS  books, deaths of the account
-- ARGV  undated deaths just heard, acceptances heard with them, window_ms, most deaths that trip nothing, share above
--       which more do, seconds to live
-- Returns when the guard tripped (0: it has not), whether it did now, since when the window reaches, the deaths and
-- acceptances in it, and both since ever.
local heard, accepted_now, window_ms = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local bucket_ms = math.max(1, math.floor(window_ms / 10))
local bucket = math.floor(now / bucket_ms)

local accepted = 0
for _, count in ipairs(redis.call('HMGET', KEYS[1], 'end:urgent:sent:', 'end:normal:sent:', 'end:bulk:sent:')) do
  accepted = accepted + (tonumber(count or 0) or 0)
end
local deaths = tonumber(redis.call('HGET', KEYS[2], 'undated') or 0)
local guard = tonumber(redis.call('HGET', KEYS[2], 'guard') or 0)

-- Field b:<bucket>: deaths and acceptances when the bucket was first looked at, and when that was.
local oldest, first = bucket, nil
local fields = redis.call('HGETALL', KEYS[2])
for at = 1, #fields, 2 do
  local number = tonumber(string.match(fields[at], '^b:(%d+)$'))
  if number and number <= bucket - 10 then
    redis.call('HDEL', KEYS[2], fields[at])
  elseif number and number <= oldest then
    oldest, first = number, fields[at + 1]
  end
end
local here = string.format('%.0f %.0f %.0f', deaths, accepted, now)
if heard > 0 then redis.call('HSETNX', KEYS[2], 'b:' .. string.format('%.0f', bucket), here) end
local deaths_before, accepted_before, since = string.match(first or here, '^(%d+) (%d+) (%d+)$')
deaths, accepted = deaths + heard, accepted + accepted_now
local dead, alive = deaths - deaths_before, math.max(0, accepted - accepted_before)
since = tonumber(since)

local tripped = 0
if heard > 0 then
  redis.call('HSET', KEYS[2], 'undated', string.format('%.0f', deaths))
  if guard == 0 and dead > tonumber(ARGV[4]) and dead > ARGV[5] * (dead + alive) then
    guard, tripped = now, 1
    redis.call('HSET', KEYS[2], 'guard', string.format('%.0f', now), 'wave', string.format('%.0f', since))
  end
  if guard == 0 then redis.call('EXPIRE', KEYS[2], ARGV[6]) else redis.call('PERSIST', KEYS[2]) end
end
return {guard, tripped, since, dead, alive, deaths, accepted}
