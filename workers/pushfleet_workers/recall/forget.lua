-- Devices do not show what they were to: it was stopped before it left.
-- KEYS  the replace key   ARGV  the message's digest, the devices
-- Returns how many devices that were.
local gone = 0
for i = 2, #ARGV do
  local value = redis.call('HGET', KEYS[1], ARGV[i])
  if value and string.sub(value, 9) == ARGV[1] then
    gone = gone + redis.call('HDEL', KEYS[1], ARGV[i])
  end
end
return gone
