-- The books beside what really lies in the structures.
-- KEYS  books, suspect, ready urgent/normal/bulk, delayed entries, owners, then leased of every known owner
-- ARGV  most entries to look at
-- Returns the books (as field, value, ...), the recounted ready, leased and delayed deliveries (-1: too many to count).
local function size(command, key) return redis.call(command, key) end
local entries = size('LLEN', KEYS[2]) + size('LLEN', KEYS[3]) + size('LLEN', KEYS[4]) + size('LLEN', KEYS[5])
  + size('HLEN', KEYS[6])
for i = 8, #KEYS do entries = entries + size('HLEN', KEYS[i]) end
local books = redis.call('HGETALL', KEYS[1])
if entries > tonumber(ARGV[1]) then return {books, -1, -1, -1} end
local ready, leased, delayed = 0, 0, 0
for i = 2, 5 do
  local length = size('LLEN', KEYS[i])
  for first = 0, length - 1, 1000 do
    for _, entry in ipairs(redis.call('LRANGE', KEYS[i], first, first + 999)) do ready = ready + header(entry) end
  end
end
for _, entry in ipairs(redis.call('HVALS', KEYS[6])) do delayed = delayed + header(entry) end
for i = 8, #KEYS do
  for _, value in ipairs(redis.call('HVALS', KEYS[i])) do leased = leased + header(string.sub(value, 9)) end
end
return {books, ready, leased, delayed}
