-- A part of an index, from one member to another, with the rows if they are wanted, until there are enough members or bytes.
-- What stands before the key in each member is left out. Comes first: whether there may be more.
local index, rows = unpack(KEYS)
local from, to, limit, room, prefix, with_rows = unpack(ARGV)
local members = redis.call('ZRANGEBYLEX', index, from, to, 'LIMIT', 0, limit)
room = tonumber(room)
prefix = tonumber(prefix)
local page = {0}
local at = 1
local few = 16
while at <= #members and room > 0 do
    local part = {}
    for i = at, math.min(#members, at + few - 1) do
        part[#part + 1] = prefix > 0 and string.sub(members[i], prefix + 1) or members[i]
    end
    at = at + #part
    local values = with_rows == '1' and redis.call('HMGET', rows, unpack(part))
    for i, key in ipairs(part) do
        page[#page + 1] = key
        room = room - #key
        if values then
            page[#page + 1] = values[i]
            room = room - #values[i]
        end
        if room <= 0 then
            break
        end
    end
    few = 128
end
if room <= 0 or #members == tonumber(limit) then
    page[1] = 1
end
return page
