-- A message is put for devices: from now on it is what they show under its replace key.
-- KEYS  the replace key
-- ARGV  what is put: the time of its entry (f64) and the message's digest, for how many ms, most devices, 1 when it may
--       have been put before and something else since: then what is of a later entry stays; the devices
-- Returns how many of them show it.
local key, pushed = KEYS[1], ARGV[1]
local most, again, at = tonumber(ARGV[3]), ARGV[4] == '1', struct.unpack('>d', pushed)
local there, shown = redis.call('HLEN', key), 0
for first = 5, #ARGV, 1000 do
  local last = math.min(first + 999, #ARGV)
  local before, now = redis.call('HMGET', key, unpack(ARGV, first, last)), {}
  for n, value in ipairs(before) do
    -- A device beyond the bound is as good as one that shows something else.
    local fits = value or there < most
    if fits and not (again and value and struct.unpack('>d', value) > at) then
      if not value then there = there + 1 end
      table.insert(now, ARGV[first + n - 1])
      table.insert(now, pushed)
      shown = shown + 1
    end
  end
  if #now > 0 then redis.call('HSET', key, unpack(now)) end
end
redis.call('PEXPIRE', key, ARGV[2])
return shown
