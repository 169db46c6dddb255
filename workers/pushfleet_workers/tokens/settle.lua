-- The owners before have lost the token.   KEYS  index   ARGV  field, owner, owners before...
-- Returns 0 when the token has gone to somebody else meanwhile, else 1.
local at_ms, owners = entry_in(redis.call('HGET', KEYS[1], ARGV[1]))
if owners[1] ~= ARGV[2] then return 0 end
local done, left = {}, {}
for at = 3, #ARGV do done[ARGV[at]] = true end
for _, owner in ipairs(owners) do
  if not done[owner] then left[#left + 1] = owner end
end
keep(at_ms, left)
return 1
