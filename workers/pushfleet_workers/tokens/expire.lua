-- Devices of a user that nobody uses go.
-- KEYS  devices, badges of the user   ARGV  heard of last before this (ms), seconds to live
-- Returns how many, and the tokens that went: {vendor, token, registered_at_ms, ...}. A record that cannot be read stays,
-- of it nobody knows when it was heard of: until nobody has heard of the user's others for a life.
local before_ms, count, gone, unread = tonumber(ARGV[1]), 0, {}, false
for _, name in ipairs(redis.call('HKEYS', KEYS[1])) do
  local device = read(KEYS[1], name)
  unread = unread or not device
  if device and heard_at(device) < before_ms then
    redis.call('HDEL', KEYS[1], name)
    redis.call('HDEL', KEYS[2], name)
    count = count + 1
    for _, channel in ipairs(device[CHANNELS]) do
      gone[#gone + 1], gone[#gone + 2], gone[#gone + 3] = channel[VENDOR], channel[TOKEN], channel[SINCE]
    end
  end
end
if unread then redis.call('EXPIRE', KEYS[1], ARGV[2], 'NX') end
return {count, gone}
