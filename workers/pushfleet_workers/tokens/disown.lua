-- A token's owner has it no more.   KEYS  index   ARGV  field, entry as read
-- Nothing happens where the entry has changed since: somebody has claimed the token, or settled a claim.
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
local at_ms, owners = entry_in(ARGV[2])
table.remove(owners, 1)
if #owners == 0 then return redis.call('HDEL', KEYS[1], ARGV[1]) end
keep(at_ms, owners)
return 1
