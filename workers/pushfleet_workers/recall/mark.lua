-- A message is taken back: whatever of it still waits meets the mark, as long as it may wait.
-- KEYS  the message
-- ARGV  the window in ms, ms that an unknown message may wait, the message's id
-- Returns what was kept of its parts.
local key = KEYS[1]
local kept = redis.call('HGETALL', key)
local life, parts = 0, {}
local t = redis.call('TIME')
for i = 1, #kept, 2 do
  if kept[i] == 'e' then
    life = kept[i + 1] - t[1] * 1000 - math.floor(t[2] / 1000)
  elseif kept[i] ~= 'r' then
    table.insert(parts, kept[i + 1])
  end
end
if #parts == 0 then life = tonumber(ARGV[2]) end
life = math.max(life, tonumber(ARGV[1]), redis.call('PTTL', key))
redis.call('HSET', key, 'r', ARGV[3])
redis.call('PEXPIRE', key, string.format('%.0f', life))
return parts
