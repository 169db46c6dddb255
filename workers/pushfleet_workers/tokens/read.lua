-- A user has read a conversation up to a message, and perhaps has so many unread ones left, as of a time.
-- KEYS  devices, badges, reads, storms of the user
-- ARGV  conversation, when the message was written (Unix ms), at_ms, unread ('' for none), most conversations,
--       seconds to live
-- Returns 1 when any of it was news. Of too many conversations the quarter goes that was read up to the oldest messages.
local up_to_ms, at_ms, unread = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local news = advance(KEYS[3], ARGV[1], ARGV[2], ARGV[5], ARGV[6]) and 1 or 0
-- A storm whose messages are all read is over; the field says conversation and place, sixteen digits.
local PLACE = 16
local storms = redis.call('HGETALL', KEYS[4])
for at = 1, #storms, 2 do
  if string.sub(storms[at], 1, -PLACE - 2) == ARGV[1] then
    local unpacked, fields = pcall(cmsgpack.unpack, storms[at + 1])
    if not unpacked or type(fields) ~= 'table' or (tonumber(fields[4]) or 0) <= up_to_ms then
      redis.call('HDEL', KEYS[4], storms[at])
    end
  end
end
if not unread then return news end

local devices = redis.call('HGETALL', KEYS[1])
for at = 1, #devices, 2 do
  local name, device = devices[at], device_in(devices[at + 1])
  if device and rebase(device, name, KEYS[2], at_ms, unread) then
    write(KEYS[1], name, device)
    news = 1
  end
end
return news
