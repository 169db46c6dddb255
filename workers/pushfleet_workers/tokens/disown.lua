-- A token's owner has it no more.   KEYS  index   ARGV  field, owner, at_ms
-- Nothing happens where somebody else owns it, or where the owner claimed it after at_ms.
local at_ms, owners = entry_in(redis.call('HGET', KEYS[1], ARGV[1]))
if owners[1] ~= ARGV[2] or at_ms > tonumber(ARGV[3]) then return 0 end
table.remove(owners, 1)
if #owners == 0 then return redis.call('HDEL', KEYS[1], ARGV[1]) end
keep(at_ms, owners)
return 1
