-- Shared by the scripts of the token index. An entry is when its owner claimed the token (u48, Unix milliseconds), a
-- stamp that is another after each change (u16), the owner, and the owners before who still have to lose it, spaces
-- between. An owner is the hash tag of a user. A damaged entry names nobody.
local function entry_in(value)
  local owners = {}
  if not value or string.find(value, '[^%w%._~@+%%:=%- ]', 9) then return 0, owners end
  for owner in string.gmatch(string.sub(value, 9), '%S+') do owners[#owners + 1] = owner end
  return #owners > 0 and struct.unpack('>I6', value) or 0, owners
end

local function keep(at_ms, owners)
  local stamp = tonumber(redis.call('TIME')[2]) % 65536
  redis.call('HSET', KEYS[1], ARGV[1], struct.pack('>I6I2', at_ms, stamp) .. table.concat(owners, ' '))
end
