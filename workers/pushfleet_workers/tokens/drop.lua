-- A token goes from a user's devices, where it is there and was registered within [from_ms, below_ms).
-- KEYS  devices of the user   ARGV  device ('' for any), vendor ('' for any), token, from_ms, below_ms
-- Returns whose token it was and since when: {vendor, registered_at_ms, ...}.
local from_ms, below_ms = tonumber(ARGV[4]), tonumber(ARGV[5])
local gone = {}

local function dead(channel)
  return channel[TOKEN] == ARGV[3] and (ARGV[2] == '' or channel[VENDOR] == ARGV[2])
    and channel[SINCE] >= from_ms and channel[SINCE] < below_ms
end

for _, name in ipairs(ARGV[1] ~= '' and {ARGV[1]} or redis.call('HKEYS', KEYS[1])) do
  local device = read(KEYS[1], name)
  if device then
    local dropped = keep_channels(device, function(channel) return not dead(channel) end)
    for _, channel in ipairs(dropped) do gone[#gone + 1], gone[#gone + 2] = channel[VENDOR], channel[SINCE] end
    if #dropped > 0 then write(KEYS[1], name, device) end
  end
end
return gone
