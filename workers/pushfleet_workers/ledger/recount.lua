-- The books beside what really lies in the structures.
-- KEYS  books, suspect, ready urgent/normal/bulk, delayed entries, owners, dead, gate, then leased of every known owner
-- ARGV  most entries to look at, then the known owners
-- Returns the books (as field, value, ...), the recounted ready, leased and delayed deliveries (-1: too many to count),
-- dead letters, when the oldest ready delivery was put, 1 when the gate is shut, and why, until when an operator pauses
-- the account (0: none does), and why; nothing when owners changed.
local FIRST_LEASED = 10
local owners = redis.call('ZRANGE', KEYS[7], 0, -1)
if #owners ~= #ARGV - 1 then return {} end
for i, owner in ipairs(owners) do
  if owner ~= ARGV[i + 1] then return {} end
end

local books = redis.call('HGETALL', KEYS[1])
local entries, oldest = redis.call('HLEN', KEYS[6]), 0
for i = 2, 5 do
  entries = entries + redis.call('LLEN', KEYS[i])
  local first = redis.call('LINDEX', KEYS[i], 0)
  if first then
    local _, _, _, _, put = header(first)
    if oldest == 0 or put < oldest then oldest = put end
  end
end
for i = FIRST_LEASED, #KEYS do entries = entries + redis.call('HLEN', KEYS[i]) end
local ready, leased, delayed = 0, 0, 0
if entries > tonumber(ARGV[1]) then
  ready, leased, delayed = -1, -1, -1
else
  for i = 2, 5 do
    for start = 0, redis.call('LLEN', KEYS[i]) - 1, 1000 do
      for _, entry in ipairs(redis.call('LRANGE', KEYS[i], start, start + 999)) do ready = ready + header(entry) end
    end
  end
  for _, entry in ipairs(redis.call('HVALS', KEYS[6])) do delayed = delayed + header(entry) end
  for i = FIRST_LEASED, #KEYS do
    for _, value in ipairs(redis.call('HVALS', KEYS[i])) do leased = leased + header(string.sub(value, 9)) end
  end
end
local g = redis.call('HMGET', KEYS[9], 'pause_until', 'open_until', 'pause_reason', 'operator_until', 'operator_reason')
local now, operator = now_ms(), tonumber(g[4]) or 0
local shut = math.max(tonumber(g[1]) or 0, tonumber(g[2]) or 0) > now
return {
  books, ready, leased, delayed, redis.call('XLEN', KEYS[8]), oldest, shut and 1 or 0, g[3] or '',
  operator > now and operator or 0, g[5] or '',
}
