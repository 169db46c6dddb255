-- A token that was called dead is alive: it comes back where it was, or is passed over no more.
-- KEYS  devices, tombstones of the user   ARGV  id of the tombstone, when it was restored
-- Returns 'restored', or why not: 'unknown' (no tombstone, or restored before), 'no_device', 'outdated' (the device has
-- registered since, or has the token).
local DEVICE, GRAVE_TOKEN, KIND, REGION, GRAVE_SINCE, PLACE, AT, FATE, UNTIL = 1, 4, 5, 6, 7, 8, 11, 12, 13
local packed = redis.call('HGET', KEYS[2], ARGV[1])
local stone = packed and cmsgpack.unpack(packed)
if not stone or stone[FATE] == 'restored' then return 'unknown' end
local name = string.gsub(stone[DEVICE], '%x%x', function(byte) return string.char(tonumber(byte, 16)) end)
local device = read(KEYS[1], name)
if not device then return 'no_device' end

local same
for _, channel in ipairs(device[CHANNELS]) do
  if channel[TOKEN] == stone[GRAVE_TOKEN] and channel[VENDOR] == stone[2] then same = channel end
end
if stone[FATE] == 'quarantined' then
  if not same then return 'outdated' end
  same[QUARANTINED_UNTIL] = 0
else
  if same or registered_at(device) > stone[GRAVE_SINCE] then return 'outdated' end
  local channel = {stone[2], stone[3], stone[GRAVE_TOKEN], stone[GRAVE_SINCE], stone[KIND], stone[REGION], 0}
  table.insert(device[CHANNELS], math.min(stone[PLACE], #device[CHANNELS] + 1), channel)
end
write(KEYS[1], name, device)
-- The grave stays until its time is over, without the token: repeating this finds that it was done.
stone[GRAVE_TOKEN], stone[AT], stone[FATE], stone[UNTIL] = '', tonumber(ARGV[2]), 'restored', 0
redis.call('HSET', KEYS[2], ARGV[1], cmsgpack.pack(stone))
return 'restored'
