-- Pushes count in devices' badges, each message once.
-- KEYS  badges of a user, for each push
-- ARGV  seconds to live, then for each push: device, digest of the message (4 bytes) with when it was written (u32 of
--       16 ms, which comes round after two years)
-- Returns for each the pushes counted since the device's base, or the error of a key that holds something else. A value
-- is the count (u32), then digest and time (u32) of each of the last 63 messages, which together stay within
-- hash-max-listpack-value.
local function count(key, device, message)
  local value = redis.pcall('HGET', key, device)
  if type(value) == 'table' then return value end
  local counted, recent = 1, message
  if value and #value % 8 == 4 and #value <= 4 + 63 * 8 then
    counted = struct.unpack('>I4', value)
    local digest = string.sub(message, 1, 4)
    local at = string.find(value, digest, 5, true)
    while at do
      if (at - 5) % 8 == 0 then return counted end
      at = string.find(value, digest, at + 1, true)
    end
    counted = counted + 1
    recent = string.sub(string.sub(value, 5) .. message, -63 * 8)
  end
  redis.call('HSET', key, device, struct.pack('>I4', counted) .. recent)
  -- Now and then is enough: a key that lives for weeks needs no push to tell it.
  if counted % 16 == 1 then redis.call('EXPIRE', key, ARGV[1]) end
  return counted
end

local answers = {}
for i, key in ipairs(KEYS) do answers[i] = count(key, ARGV[2 * i], ARGV[2 * i + 1]) end
return answers
