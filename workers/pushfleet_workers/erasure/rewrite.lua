-- An entry of a stream goes; where something of it is left, it comes again at the end with that in place of its payload.
-- KEYS  stream   ARGV  its id, the field of the payload, the payload as it was, as it is to be ('': nothing is left)
-- Returns 1, or 0 where it is not there as it was.
local found = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])[1]
if not found then return 0 end
local fields = found[2]
for i = 1, #fields, 2 do
  if fields[i] == ARGV[2] then
    if fields[i + 1] ~= ARGV[3] then return 0 end
    fields[i + 1] = ARGV[4]
  end
end
redis.call('XDEL', KEYS[1], ARGV[1])
if ARGV[4] ~= '' then redis.call('XADD', KEYS[1], '*', unpack(fields)) end
return 1
