-- A token gets an owner: the newest registration wins, whatever comes first.
-- KEYS  index   ARGV  field, owner, at_ms
-- Returns whether it is won; the owners before; until when each may have claimed it; a few other fields of the index
-- with their values, to be looked at by the way. Owners before stay named until they have lost the token, so that a
-- claimer that dies in between leaves no second owner behind.
local at_ms, owners, before, until_ms, neighbours = tonumber(ARGV[3]), {ARGV[2]}, {}, {}, {}
local held_at_ms, held_by = entry_in(redis.call('HGET', KEYS[1], ARGV[1]))
if #held_by == 0 then
  neighbours = redis.call('HRANDFIELD', KEYS[1], 2, 'WITHVALUES')
elseif held_at_ms > at_ms then
  if held_by[1] ~= ARGV[2] then return {0, before, until_ms, neighbours} end
  at_ms = held_at_ms
end
for place, owner in ipairs(held_by) do
  if owner ~= ARGV[2] then
    before[#before + 1] = owner
    -- Whoever claims it again in this very moment, after us, is not to lose it by us.
    until_ms[#before] = place == 1 and held_at_ms or held_at_ms - 1
    owners[#owners + 1] = owner
  end
end
keep(at_ms, owners)
return {1, before, until_ms, neighbours}
